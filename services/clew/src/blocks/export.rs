//! A block's spans in a form that other programs read: `clew block export`.

use clew_block::Block;
use clew_catalog::{ObjectKey, TenantBlock};
use clew_model::Trace;
use clew_model::otlp::{IdStyle, write_resource_spans_json_as};
use clew_storage::Bucket;

use super::of_object;
use super::read::{open, page};
use super::spans::SpanTable;
use crate::cli::ExportFormat;

/// Writes the blocks of an object, bit by bit.
pub(super) async fn run(
    bucket: &Bucket,
    key: ObjectKey,
    places: Vec<&TenantBlock>,
    format: ExportFormat,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), String> {
    let mut table = match format {
        ExportFormat::OtlpJson => None,
        ExportFormat::Parquet => Some(SpanTable::new(sink)),
    };
    for place in places {
        let block = open(bucket, key, place).await.map_err(|fault| of_object(key, &fault))?;
        match &mut table {
            None => traces(bucket, key, place, &block, sink).await?,
            Some(table) => {
                for number in 0..block.pages().entries().len() {
                    let traces = page(bucket, key, place, &block, number).await;
                    for trace in traces.map_err(|fault| of_object(key, &fault))? {
                        for span in &trace.spans {
                            table.push(&place.tenant, span, sink)?;
                        }
                    }
                }
            }
        }
    }
    table.map_or(Ok(()), |table| table.finish(sink))
}

/// Writes each trace as a line of OTLP JSON (`TracesData`).
async fn traces(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
    block: &Block,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), String> {
    let mut pending: Option<Trace> = None;
    for number in 0..block.pages().entries().len() {
        let traces = page(bucket, key, place, block, number).await;
        for trace in traces.map_err(|fault| of_object(key, &fault))? {
            match &mut pending {
                Some(known) if known.id == trace.id => known.spans.extend(trace.spans),
                _ => {
                    if let Some(whole) = pending.replace(trace) {
                        sink(otlp_json(&whole)?.as_bytes());
                    }
                }
            }
        }
    }
    if let Some(whole) = pending {
        sink(otlp_json(&whole)?.as_bytes());
    }
    Ok(())
}

fn otlp_json(trace: &Trace) -> Result<String, String> {
    let mut out = String::from("{\"resourceSpans\":");
    write_resource_spans_json_as(trace, IdStyle::Hex, &mut out).map_err(|e| e.to_string())?;
    out.push_str("}\n");
    Ok(out)
}
