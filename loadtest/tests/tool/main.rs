//! The whole tool against a small server of its own: a right server is found right, and every
//! fault of a wrong one is found. The server evaluates queries naively over decoded spans, so a
//! clean verification also shows that the expected answers agree with such an evaluation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;
mod values;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clew_loadtest::check::Order;
use clew_loadtest::measure::{Stats, Totals};
use clew_loadtest::queries::{Repeats, measure};
use clew_loadtest::send::{Cast, Extent, Pace, Plan, run};
use clew_loadtest::target::{Compression, Manners, Otlp, Protocol, Tempo};
use clew_loadtest::verify::{Depth, Truth, Verified, verify};
use clew_loadtest::workload::{DataSet, GENERATOR_VERSION};
use clew_node::Deps;

use crate::server::{Answering, Fault, Server};

struct Run {
    protocol: Protocol,
    compression: Compression,
    tenants: u64,
    answering: Answering,
    extent: Extent,
    traces: u64,
}

impl Run {
    fn over(protocol: Protocol) -> Run {
        Run {
            protocol,
            compression: Compression::None,
            tenants: 1,
            answering: Answering::Always,
            extent: Extent::Traces,
            traces: 320,
        }
    }

    fn data_set(&self) -> DataSet {
        DataSet {
            generator: GENERATOR_VERSION,
            seed: 7,
            base_unix_nanos: 1_750_000_000_000_000_000,
            interval_nanos: 5_000_000,
            services: 20,
            concurrent_traces: 64,
            traces: self.traces,
            tenants: self.tenants,
        }
    }

    /// Sends everything to a fresh server.
    async fn send(self) -> Sent {
        let deps = Deps::system(2);
        let server = Server::start(self.answering, &deps.tasks).await;
        let manners = Manners {
            headers: vec![("X-Test".to_owned(), "yes".to_owned())],
            timeout: Duration::from_secs(30),
            tenant_header: self.tenants > 1,
        };
        let clock = deps.clock.clone();
        let url = server.url();
        let otlp =
            Otlp::new(&url, self.protocol, self.compression, 2, manners.clone(), clock.clone());
        let tempo = Tempo::new(&url, manners, clock).unwrap();
        let plan = Plan {
            data_set: self.data_set(),
            extent: self.extent,
            pace: Pace::FlatOut,
            connections: 2,
            in_flight: 2,
            make_ahead: false,
            makers: 2,
            retry_for: Duration::from_secs(60),
            reads_per_second: 0.0,
            found_within: Duration::from_secs(1),
            tenant_header: self.tenants > 1,
        };
        let stats = Arc::new(Stats::default());
        let cast = Cast {
            otlp: otlp.unwrap(),
            tempo: tempo.clone(),
            process: None,
            stats: Arc::clone(&stats),
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        let outcome = run(&plan, cast, &deps, |_, _| {}).await.unwrap();
        let truth = Truth::new(outcome.ledger, &deps.tasks).await.unwrap();
        Sent { server, truth, tempo, totals: stats.totals(), deps }
    }
}

struct Sent {
    server: Server,
    truth: Truth,
    tempo: Tempo,
    totals: Totals,
    deps: Deps,
}

impl Sent {
    async fn verify(&self, order: Order) -> Verified {
        let depth = Depth { traces: usize::MAX, order };
        verify(&self.truth, &self.tempo, depth, |_| {}).await.unwrap()
    }

    async fn assert_clean(&self) {
        let verified = self.verify(Order::Newest).await;
        assert_eq!(verified.findings.kept, Vec::new());
    }

    /// The subjects about which something is found wrong with `fault`.
    async fn found_with(&self, fault: Fault) -> Vec<String> {
        self.server.set_fault(fault);
        let verified = self.verify(Order::Newest).await;
        self.server.set_fault(Fault::None);
        verified.findings.counts.into_keys().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_server_is_found_right_over_http() {
    let sent = Run { compression: Compression::Zstd, tenants: 3, ..Run::over(Protocol::Http) };
    let sent = sent.send().await;
    assert_eq!(sent.totals.spans_acked, sent.server.span_count());
    assert_eq!((sent.totals.attempts_retried, sent.totals.requests_unknown), (0, 0));
    let verified = sent.verify(Order::Newest).await;
    assert_eq!(verified.findings.kept, Vec::new());
    assert!(verified.closed);
    assert_eq!((verified.traces, verified.spans), (320, sent.totals.spans_acked));
    assert!(verified.searches.values().sum::<u64>() > 100);
    assert_eq!(sent.verify(Order::Any).await.findings.kept, Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_on_the_way_are_repeated_over_both_protocols() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for answering in [Answering::RefusesThird, Answering::ForgetsThirdAnswer] {
            let sent = Run { answering, ..Run::over(protocol) }.send().await;
            assert!(sent.totals.attempts_retried > 3, "{:?}", sent.totals);
            assert_eq!(sent.totals.requests_unknown, 0);
            assert_eq!(sent.totals.spans_acked, sent.server.span_count());
            sent.assert_clean().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_claimed_about_what_was_not_acknowledged() {
    for answering in [Answering::RejectsThird, Answering::BreaksThird] {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let sent = Run { answering, ..Run::over(protocol) }.send().await;
            assert!(sent.totals.requests_unknown > 3, "{:?}", sent.totals);
            let verified = sent.verify(Order::Newest).await;
            assert_eq!(verified.findings.kept, Vec::new());
            assert!(!verified.closed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_found() {
    let sent = Run { tenants: 2, traces: 128, ..Run::over(Protocol::Http) }.send().await;
    sent.assert_clean().await;
    let has = |found: &[String], subject: &str| found.iter().any(|s| s == subject);
    for fault in [Fault::LosesSpan, Fault::DoublesSpan, Fault::ChangesSpan] {
        let found = sent.found_with(fault).await;
        assert!(has(&found, "by id"), "{fault:?}: {found:?}");
    }
    let found = sent.found_with(Fault::LosesTrace).await;
    assert!(has(&found, "by id") && has(&found, "everything"), "{found:?}");
    for fault in [Fault::SwapsResults, Fault::RepeatsResult, Fault::DropsResult, Fault::Partial] {
        let found = sent.found_with(fault).await;
        assert!(has(&found, "method POST, all"), "{fault:?}: {found:?}");
        assert!(!has(&found, "by id"), "{fault:?}: {found:?}");
    }
    let found = sent.found_with(Fault::MixesTenants).await;
    assert!(has(&found, "by id, other tenant") && has(&found, "everything"), "{found:?}");
    let found = sent.found_with(Fault::InventsTraces).await;
    assert!(has(&found, "by id, never sent"), "{found:?}");
    let found = sent.found_with(Fault::ForgetsTag).await;
    assert_eq!(found, ["attribute names", "attribute values"]);
    sent.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_with_a_whole_wave() {
    let sent = Run { extent: Extent::Spans(1000), ..Run::over(Protocol::Grpc) }.send().await;
    let data_set = &sent.truth.ledger.data_set;
    assert_eq!(data_set.traces % data_set.concurrent_traces, 0);
    assert!(data_set.traces < 320);
    assert!(sent.totals.spans_acked >= 1000);
    sent.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measured_queries_are_checked() {
    let sent = Run::over(Protocol::Http).send().await;
    let ask = async || {
        let repeats = Repeats { queries: 2, time: Duration::ZERO };
        let depth = Depth { traces: 10, order: Order::Newest };
        let clock = &sent.deps.clock;
        measure(&sent.truth, &sent.tempo, None, repeats, depth, clock, |_| {}).await.unwrap()
    };
    let (costs, findings) = ask().await;
    assert_eq!(findings.kept, Vec::new());
    assert_eq!(costs.len(), 16);
    assert!(costs.iter().all(|cost| cost.latency.count >= 2 && cost.wrong == 0));
    sent.server.set_fault(Fault::DropsResult);
    let (costs, findings) = ask().await;
    assert!(findings.total() > 0);
    assert!(costs.iter().any(|cost| cost.class == "method POST, all" && cost.wrong == 2));
}
