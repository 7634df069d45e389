//! The head holds every entry once, whatever is sealed, flushed or read meanwhile.

use clew_model::wire::{put_bytes_field, put_fixed64_field};
use clew_node::Metrics;
use clew_raft::ReplicaId;
use proptest::prelude::*;

use super::*;
use crate::metrics::IngesterMetrics;

fn span(trace: u8, span: u8) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, &[trace; 16]);
    put_bytes_field(&mut out, 2, &[span; 8]);
    put_bytes_field(&mut out, 5, b"name");
    put_fixed64_field(&mut out, 7, 1_000);
    put_fixed64_field(&mut out, 8, 2_000);
    out
}

/// An entry with one batch of spans (trace, span).
fn entry(index: u64, tenant: &str, spans: &[(u8, u8)]) -> CommittedEntry {
    let mut scope = Vec::new();
    for (trace_id, span_id) in spans {
        put_bytes_field(&mut scope, 2, &span(*trace_id, *span_id));
    }
    let mut resource = Vec::new();
    put_bytes_field(&mut resource, 2, &scope);
    let mut traces = Vec::new();
    put_bytes_field(&mut traces, 1, &resource);
    let batch = Batch {
        tenant: tenant.to_owned(),
        raw_bytes: traces.len() as u64,
        traces: Bytes::from(zstd::bulk::compress(&traces, 1).unwrap()),
        ..Batch::default()
    };
    CommittedEntry {
        log_id: log_id(index),
        data: Some(Bytes::from(LogEntry { batches: vec![batch] }.encode_to_vec())),
    }
}

fn log_id(index: u64) -> LogId {
    LogId { term: 1, replica: ReplicaId(1), index }
}

struct Fixture {
    head: Head,
    stretch: Stretch,
    intake: Intake,
}

impl Fixture {
    fn new() -> Fixture {
        let recent = RecentFlushes::new(Duration::from_secs(3600));
        recent.load(Vec::new());
        let metrics = IngesterMetrics::new(&Metrics::new()).shard;
        let head = Head::new(Arc::new(Budget::new(1 << 30)), 7);
        let stretch = head.reset(0);
        let intake = Intake { recent: Arc::new(recent), now: Duration::ZERO, metrics };
        Fixture { head, stretch, intake }
    }

    fn consume(&self, entries: Vec<CommittedEntry>) {
        self.head.consume(self.stretch, entries, &self.intake, |_| false);
    }

    fn rows(&self, tenant: &str, watermark: u64, upto: u64) -> Option<u32> {
        match self.head.slice(&TenantId::parse(tenant).unwrap(), watermark, upto) {
            Slice::Tables(tables) => Some(tables.iter().map(|(_, rows)| rows).sum()),
            Slice::FlushedThrough(_) => None,
            Slice::Behind => panic!("{upto} is not consumed"),
            Slice::Misaligned => panic!("watermark {watermark} is no border"),
        }
    }
}

#[test]
fn a_read_is_cut_at_any_index() {
    let fixture = Fixture::new();
    fixture.consume(vec![
        entry(3, "a", &[(1, 1), (1, 2)]),
        CommittedEntry { log_id: log_id(4), data: None },
        entry(5, "b", &[(1, 1)]),
        entry(6, "a", &[(1, 3)]),
    ]);
    assert_eq!(*fixture.head.consumed().borrow(), 6);
    assert_eq!(fixture.rows("a", 0, 2), Some(0));
    assert_eq!(fixture.rows("a", 0, 3), Some(2));
    assert_eq!(fixture.rows("a", 0, 5), Some(2));
    assert_eq!(fixture.rows("a", 0, 6), Some(3));
    assert_eq!(fixture.rows("b", 0, 6), Some(1));
    assert_eq!(fixture.rows("c", 0, 6), Some(0));
}

#[test]
fn what_was_begun_before_a_rebuild_takes_nothing_after_it() {
    let fixture = Fixture::new();
    let entries = || (3..6).map(|index| entry(index, "a", &[(1, 1)])).collect::<Vec<_>>();
    let rebuilt = fixture.head.reset(2);
    // The work of the earlier stretch went on behind its back, from where that one stood.
    fixture.head.consume(fixture.stretch, entries().split_off(1), &fixture.intake, |_| false);
    assert_eq!(*fixture.head.consumed().borrow(), 2, "entry 3 would be skipped");
    assert_eq!(fixture.head.active().spans(), 0);
    fixture.head.consume(rebuilt, entries(), &fixture.intake, |_| false);
    assert_eq!(fixture.rows("a", 2, 5), Some(3));
}

#[test]
fn a_rebuild_in_the_middle_of_other_work_leaves_no_trace_of_it() {
    let fixture = Fixture::new();
    // Rebuilt between the second entry and the third.
    let rebuilt = std::cell::Cell::new(None);
    let rebuild = |segment: &Segment| {
        if segment.spans() == 2 {
            rebuilt.set(Some(fixture.head.reset(0)));
        }
        false
    };
    let entries = (1..5).map(|index| entry(index, "a", &[(1, 1)])).collect::<Vec<_>>();
    fixture.head.consume(fixture.stretch, entries.clone(), &fixture.intake, rebuild);
    assert_eq!(*fixture.head.consumed().borrow(), 0);
    fixture.head.consume(rebuilt.get().unwrap(), entries, &fixture.intake, |_| false);
    assert_eq!(fixture.rows("a", 0, 4), Some(4));
}

#[test]
fn a_reader_of_a_head_that_was_rebuilt_is_not_told_that_it_is_empty() {
    let fixture = Fixture::new();
    fixture.consume(vec![entry(3, "a", &[(1, 1)])]);
    fixture.head.reset(0);
    let slice = fixture.head.slice(&TenantId::parse("a").unwrap(), 0, 3);
    assert!(matches!(slice, Slice::Behind), "{slice:?}");
}

#[test]
fn a_segment_that_is_sealed_takes_nothing_more() {
    let fixture = Fixture::new();
    // Sealed by somebody else between the first entry and the second.
    let seal = |segment: &Segment| {
        if segment.from == 0 {
            fixture.head.seal();
        }
        false
    };
    let entries = vec![entry(3, "a", &[(1, 1)]), entry(4, "a", &[(2, 1)])];
    fixture.head.consume(fixture.stretch, entries, &fixture.intake, seal);
    assert_eq!(fixture.head.oldest_sealed().unwrap().last_entry(), Some(log_id(3)));
    assert_eq!(fixture.rows("a", 3, 4), Some(1), "a border between the two");
}

#[test]
fn a_full_segment_takes_nothing_more() {
    let fixture = Fixture::new();
    let entries = (3..9).map(|index| entry(index, "a", &[(1, 1)])).collect();
    fixture.head.consume(fixture.stretch, entries, &fixture.intake, |active| active.spans() >= 2);
    assert_eq!(*fixture.head.consumed().borrow(), 4);
}

#[test]
fn a_watermark_inside_a_segment_is_told_apart() {
    let fixture = Fixture::new();
    fixture.consume(vec![entry(3, "a", &[(1, 1)]), entry(4, "a", &[(1, 2)])]);
    let slice = fixture.head.slice(&TenantId::parse("a").unwrap(), 3, 4);
    assert!(matches!(slice, Slice::Misaligned), "{slice:?}");
    assert_eq!(fixture.rows("a", 4, 4), Some(0));
}

#[test]
fn a_trace_over_two_segments_is_split_in_the_later_one() {
    let fixture = Fixture::new();
    fixture.consume(vec![entry(3, "a", &[(1, 1), (2, 1)])]);
    assert_eq!(fixture.head.seal(), Some(log_id(3)));
    assert_eq!(fixture.head.seal(), None, "an empty segment is not sealed");
    fixture.consume(vec![entry(4, "a", &[(2, 2), (3, 1)]), entry(5, "b", &[(1, 1)])]);
    let active = fixture.head.active();
    let split = |tenant: &str, trace: u8| {
        let table = active.tenant(&TenantId::parse(tenant).unwrap()).unwrap();
        let table = table.table.read();
        table.is_split(table.find(&TraceId([trace; 16])).unwrap())
    };
    assert!(split("a", 2));
    assert!(!split("a", 3));
    assert!(!split("b", 1), "another tenant's trace with the same id is another trace");
}

#[test]
fn a_batch_that_fell_over_is_split() {
    let fixture = Fixture::new();
    let mut fallen = entry(3, "a", &[(1, 1)]);
    let mut decoded = LogEntry::decode(fallen.data.unwrap()).unwrap();
    decoded.batches[0].fallback = true;
    fallen.data = Some(Bytes::from(decoded.encode_to_vec()));
    fixture.consume(vec![fallen]);
    let table = fixture.head.active().tenant(&TenantId::parse("a").unwrap()).unwrap();
    assert!(table.table.read().is_split(0));
}

#[test]
fn a_damaged_entry_is_counted_and_passed() {
    let fixture = Fixture::new();
    let mut damaged = entry(4, "a", &[(1, 2)]);
    damaged.data = Some(Bytes::from_static(b"\x0a\xff\xff"));
    fixture.consume(vec![entry(3, "a", &[(1, 1)]), damaged, entry(5, "a", &[(1, 3)])]);
    assert_eq!(fixture.rows("a", 0, 5), Some(2));
    assert_eq!(fixture.intake.metrics.damaged_batches.get(), 1);
}

#[test]
fn dropping_gives_the_memory_back() {
    let fixture = Fixture::new();
    fixture.consume(vec![entry(3, "a", &[(1, 1)])]);
    assert!(fixture.head.budget.used() > 0);
    fixture.head.seal();
    fixture.head.drop_through(3);
    let empty = fixture.head.budget.used();
    fixture.head.reset(3);
    assert_eq!(fixture.head.budget.used(), empty);
    assert_eq!(*fixture.head.flushed().borrow(), 3);
}

proptest! {
    /// For any interleaving of entries, seals and drops, a reader that holds a watermark W the head
    /// has announced sees every entry in (W, U] once, or is told that the head has moved on.
    #[test]
    fn every_entry_is_seen_once(steps in prop::collection::vec(0u8..6, 1..60)) {
        let fixture = Fixture::new();
        let mut entries = Vec::new();
        let mut borders = vec![0u64];
        let mut next = 1u64;
        for step in steps {
            match step {
                0..=3 => {
                    let number = u8::try_from(next % 250).unwrap() + 1;
                    fixture.consume(vec![entry(next, "a", &[(number, 1)])]);
                    entries.push(next);
                    next += 1;
                }
                4 => {
                    if let Some(through) = fixture.head.seal() {
                        borders.push(through.index);
                    }
                }
                _ => {
                    if let Some(oldest) = fixture.head.oldest_sealed() {
                        fixture.head.drop_through(oldest.last_entry().unwrap().index);
                    }
                }
            }
            let from = *fixture.head.flushed().borrow();
            for watermark in &borders {
                let upto = next - 1;
                let expected = entries.iter().filter(|i| *i > watermark && **i <= upto).count();
                let seen = fixture.rows("a", *watermark, upto);
                if *watermark < from {
                    prop_assert_eq!(seen, None);
                } else {
                    prop_assert_eq!(seen, Some(u32::try_from(expected).unwrap()));
                }
            }
        }
    }
}
