//! How full the disk below a folder is, read when metrics are scraped.

use std::path::{Path, PathBuf};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};

use crate::Metrics;

/// Registers size and free space of the file system that `folder` is on.
pub fn register_disk_metrics(metrics: &Metrics, folder: &Path) {
    if let Err(error) = metrics.registry().register(Box::new(DiskCollector::new(folder))) {
        tracing::error!(%error, "disk metrics could not be registered");
    }
}

struct DiskCollector {
    folder: PathBuf,
    size: Gauge,
    available: Gauge,
}

impl DiskCollector {
    #[allow(clippy::expect_used, reason = "metric names are constants of the code")]
    fn new(folder: &Path) -> DiskCollector {
        let gauge = |name: &str, help: &str| {
            Gauge::with_opts(Opts::new(name, help)).expect("a metric's name is valid")
        };
        DiskCollector {
            folder: folder.to_owned(),
            size: gauge("clew_disk_size_bytes", "Size of the disk that data_dir is on."),
            available: gauge(
                "clew_disk_available_bytes",
                "Space on the disk that data_dir is on, as far as this process may use it.",
            ),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
    fn read(&self) {
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return };
        let unit = if disk.f_frsize == 0 { disk.f_bsize } else { disk.f_frsize };
        self.size.set(disk.f_blocks.saturating_mul(unit) as f64);
        self.available.set(disk.f_bavail.saturating_mul(unit) as f64);
    }
}

impl Collector for DiskCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut desc = self.size.desc();
        desc.extend(self.available.desc());
        desc
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        let mut families = self.size.collect();
        families.extend(self.available.collect());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_folder_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        register_disk_metrics(&metrics, dir.path());
        let text = metrics.render().unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<f64>().unwrap()
        };
        let (size, available) =
            (value("clew_disk_size_bytes "), value("clew_disk_available_bytes "));
        assert!(size > 0.0 && (0.0..=size).contains(&available), "{text}");
    }
}
