//! The server under test: where spans go in and where queries are answered.

mod grpc;
mod http;
mod otlp;
mod outcome;
mod tempo;

use std::time::Duration;

pub use self::otlp::{Compression, Otlp, Protocol};
pub use self::outcome::Sent;
pub(crate) use self::tempo::SPANS_PER_SET;
pub use self::tempo::{Answer, Seconds, Tempo};

/// What every request to the server has in common.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Headers sent with every request, such as authorization.
    pub headers: Vec<(String, String)>,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Whether requests name their tenant.
    pub tenant_header: bool,
}

impl Manners {
    /// Headers for a request of `tenant`.
    fn headers(&self, tenant: u64) -> impl Iterator<Item = (String, String)> {
        let tenant = self
            .tenant_header
            .then(|| ("x-scope-orgid".to_owned(), crate::workload::tenant_name(tenant)));
        self.headers.iter().cloned().chain(tenant)
    }
}
