//! The registry of a process's Prometheus metrics, passed down as a value.

use prometheus::core::{Collector, GenericCounter, GenericCounterVec};
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets for request durations, in seconds.
pub const DURATION_SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A cheap handle to a registry. Registering the same metric twice gives the first one's name and
/// help with separate values, and is logged: names are constants, so it is a bug.
#[derive(Debug, Clone)]
pub struct Metrics(Registry);

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Metrics {
        Metrics(Registry::new())
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: Result<C, prometheus::Error>) -> C {
        #[allow(clippy::expect_used, reason = "metric names and labels are constants of the code")]
        let metric = metric.expect("a metric's name, labels and buckets are valid");
        if let Err(error) = self.0.register(Box::new(metric.clone())) {
            tracing::error!(%error, "a metric could not be registered");
        }
        metric
    }

    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(GenericCounter::with_opts(Opts::new(name, help)))
    }

    /// Counters by label.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(GenericCounterVec::new(Opts::new(name, help), labels))
    }

    /// An integer gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(Opts::new(name, help)))
    }

    /// Integer gauges by label.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of fractions or seconds.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::with_opts(Opts::new(name, help)))
    }

    /// Gauges of fractions or seconds by label.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    /// Counters of seconds or other fractions by label.
    pub fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.register(CounterVec::new(Opts::new(name, help), labels))
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(DURATION_SECONDS_BUCKETS.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    /// Histograms of seconds by label.
    pub fn seconds_by(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(DURATION_SECONDS_BUCKETS.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }

    /// The Prometheus registry itself.
    pub fn registry(&self) -> &Registry {
        &self.0
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// The encoder's, for metrics that do not belong together.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_metrics_are_rendered() {
        let metrics = Metrics::new();
        metrics.counters("clew_test_total", "A test.", &["kind"]).with_label_values(&["a"]).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("clew_test_total{kind=\"a\"} 1"), "{text}");
    }
}
