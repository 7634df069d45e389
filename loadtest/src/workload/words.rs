//! The vocabulary from which services, routes, tables and users are named.

/// What services, routes and tables are about.
pub(crate) const NOUNS: [&str; 48] = [
    "storefront",
    "checkout",
    "cart",
    "catalog",
    "orders",
    "payment",
    "shipping",
    "inventory",
    "search",
    "pricing",
    "reviews",
    "users",
    "sessions",
    "mailer",
    "currency",
    "invoices",
    "suggestions",
    "adverts",
    "stock",
    "warehouse",
    "returns",
    "coupons",
    "loyalty",
    "wishlist",
    "refunds",
    "ledger",
    "billing",
    "fraud",
    "geocoder",
    "taxes",
    "media",
    "thumbnails",
    "translations",
    "sitemap",
    "webhooks",
    "audit",
    "exports",
    "imports",
    "scheduler",
    "metering",
    "quotas",
    "partners",
    "affiliates",
    "subscriptions",
    "tickets",
    "chat",
    "feedback",
    "surveys",
];

/// Second part of a service's name once the nouns are used up.
pub(crate) const ROLES: [&str; 10] =
    ["api", "worker", "gateway", "sync", "index", "cache", "proxy", "batch", "rules", "store"];

/// Namespaces, which stand for teams.
pub(crate) const NAMESPACES: [&str; 6] =
    ["shop", "fulfilment", "money", "people", "growth", "core"];

/// Cloud regions.
pub(crate) const REGIONS: [&str; 3] = ["eu-central-1", "us-east-1", "ap-southeast-2"];

/// Availability zones of a region.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// What a language calls itself, its SDK version and its runtime's thread names.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) sdk_version: &'static str,
    pub(crate) thread: &'static str,
    pub(crate) package: &'static str,
    /// Of HTTP server, HTTP client, RPC, database and own code.
    pub(crate) scopes: [(&'static str, &'static str); 5],
}

/// The languages services are written in.
pub(crate) const LANGUAGES: [Language; 4] = [
    Language {
        name: "java",
        sdk_version: "1.49.0",
        thread: "exec-",
        package: "com.acme.shop.",
        scopes: [
            ("io.opentelemetry.tomcat-10.0", "2.15.0-alpha"),
            ("io.opentelemetry.apache-httpclient-5.2", "2.15.0-alpha"),
            ("io.opentelemetry.grpc-1.6", "2.15.0-alpha"),
            ("io.opentelemetry.jdbc", "2.15.0-alpha"),
            ("com.acme.shop.tracing", "1.0.3"),
        ],
    },
    Language {
        name: "go",
        sdk_version: "1.35.0",
        thread: "goroutine-",
        package: "acme.example/shop/internal/",
        scopes: [
            ("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.60.0"),
            ("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.60.0"),
            (
                "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
                "0.60.0",
            ),
            ("github.com/XSAM/otelsql", "0.38.0"),
            ("acme.example/shop/tracing", "v0.9.1"),
        ],
    },
    Language {
        name: "nodejs",
        sdk_version: "2.0.0",
        thread: "worker-",
        package: "src/handlers/",
        scopes: [
            ("@opentelemetry/instrumentation-http", "0.200.0"),
            ("@opentelemetry/instrumentation-undici", "0.11.0"),
            ("@opentelemetry/instrumentation-grpc", "0.200.0"),
            ("@opentelemetry/instrumentation-pg", "0.52.0"),
            ("shop-tracing", "3.2.0"),
        ],
    },
    Language {
        name: "python",
        sdk_version: "1.32.1",
        thread: "pool-0_",
        package: "shop.views.",
        scopes: [
            ("opentelemetry.instrumentation.fastapi", "0.53b1"),
            ("opentelemetry.instrumentation.httpx", "0.53b1"),
            ("opentelemetry.instrumentation.grpc", "0.53b1"),
            ("opentelemetry.instrumentation.psycopg", "0.53b1"),
            ("shop.tracing", "0.4"),
        ],
    },
];

/// Browsers and clients.
pub(crate) const USER_AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:137.0) Gecko/20100101 Firefox/137.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/135.0.0.0 Safari/537.36",
    "okhttp/4.12.0",
    "shop-android/7.31.2",
    "curl/8.13.0",
];

/// Preferred languages of a client, as a header with several values.
pub(crate) const ACCEPT_LANGUAGES: [&[&str]; 3] =
    [&["en-US", "en"], &["de-AT", "de", "en"], &["fr"]];

/// Exception types, with what they say.
pub(crate) const EXCEPTIONS: [(&str, &str); 6] = [
    ("java.net.SocketTimeoutException", "read timed out after 2000 ms"),
    ("java.lang.IllegalStateException", "cart is already checked out"),
    ("ConnectionRefusedError", "connect ECONNREFUSED 10.3.17.201:8080"),
    ("psycopg.errors.DeadlockDetected", "deadlock detected while updating a row"),
    ("KeyError", "'shipping_address'"),
    ("*errors.errorString", "context deadline exceeded"),
];

/// Things worth noting during a span.
pub(crate) const NOTES: [&str; 4] =
    ["cache.miss", "retry.scheduled", "feature_flag.evaluation", "lock.acquired"];

/// External services that are called but not traced.
pub(crate) const EXTERNALS: [&str; 4] =
    ["api.cardbank.example", "hooks.chat.example", "geo.maps.example", "sms.gateway.example"];
