//! Wall-clock time as OTLP and the Tempo API count it.

/// Nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// The time `seconds` after the epoch, saturating.
    pub const fn from_seconds(seconds: u64) -> UnixNanos {
        UnixNanos(seconds.saturating_mul(1_000_000_000))
    }

    /// Whole seconds since the epoch.
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The time since `earlier`, or zero if that is later.
    pub const fn since(self, earlier: UnixNanos) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
