//! What a server says about itself: the counters of its metrics page, and its threads.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::own_server::OwnServer;

/// Numbers by label.
pub(super) type ByLabel = BTreeMap<String, f64>;

/// What is read from a server after everything is in blocks.
#[derive(Debug, Clone)]
pub(crate) struct Scraped {
    /// Processor seconds by phase, where the server counts them.
    pub(super) phases: ByLabel,
    /// Processor seconds of the threads of the log's database, which no phase covers.
    pub(super) database_seconds: f64,
    /// Stored bytes by section of the blocks.
    pub(super) sections: ByLabel,
    /// Bytes of objects in the bucket.
    pub(super) object_bytes: f64,
    /// Objects in the bucket.
    pub(super) objects: f64,
}

impl Scraped {
    /// Reads the metrics page and the threads.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub(super) async fn read(server: &OwnServer) -> Result<Scraped, Error> {
        let text = server.metrics().await?;
        let total = |name| by_label(&text, name, None).values().sum();
        let threads = server.process().threads()?;
        let database = threads.iter().filter(|(name, _)| name.starts_with("rocksdb:"));
        Ok(Scraped {
            phases: by_label(&text, "clew_cpu_seconds_total", Some("phase")),
            database_seconds: database.map(|(_, time)| time.as_secs_f64()).sum(),
            sections: by_label(&text, "clew_ingester_flushed_section_bytes_total", Some("section")),
            object_bytes: total("clew_ingester_flushed_bytes_total"),
            objects: total("clew_ingester_flushes_total"),
        })
    }
}

/// The samples of a metric in the Prometheus text format, added up by a label.
fn by_label(text: &str, name: &str, label: Option<&str>) -> ByLabel {
    let mut found = ByLabel::new();
    for line in text.lines() {
        let Some((labels, number)) = line.strip_prefix(name).and_then(sample) else { continue };
        let value = label.and_then(|label| label_value(labels, label)).unwrap_or_default();
        *found.entry(value.to_owned()).or_default() += number;
    }
    found
}

/// What follows the name of a metric: labels, if any, and a number.
fn sample(rest: &str) -> Option<(&str, f64)> {
    let (labels, number) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    // Another metric whose name begins the same way has no space here.
    number.strip_prefix(' ')?.trim().parse().ok().map(|number| (labels, number))
}

fn label_value<'a>(labels: &'a str, label: &str) -> Option<&'a str> {
    let rest = labels.split_once(&format!("{label}=\""))?.1;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_label() {
        let text = "# HELP a_total A thing.\n# TYPE a_total counter\na_total{kind=\"x y\"} 1.5\n\
                    a_total{kind=\"z\",more=\"1\"} 2\na_total{more=\"2\",kind=\"z\"} 3\n\
                    a_total_more{kind=\"z\"} 9\nb_total 7\n";
        let found = by_label(text, "a_total", Some("kind"));
        assert_eq!(found, ByLabel::from([("x y".to_owned(), 1.5), ("z".to_owned(), 5.0)]));
        assert_eq!(by_label(text, "b_total", None).values().sum::<f64>(), 7.0);
        assert!(by_label(text, "c_total", None).is_empty());
    }
}
