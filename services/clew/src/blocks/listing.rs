//! What the catalog says of blocks, as text and as JSON: `clew block list` and `show`.

use std::fmt::Write as _;

use clew_block::Block;
use clew_catalog::{ObjectMeta, TenantBlock, View};
use serde_json::{Value, json};

use super::every_block;
use crate::instant::rfc3339;

pub(super) fn text(view: &View) -> String {
    let mut text = String::from("OBJECT\tLEVEL\tTENANT\tBYTES\tSPANS\tTRACES\tSPLIT\tFROM\tTO\n");
    for (tenant, object) in every_block(view) {
        let Some(block) = object.block(&tenant) else { continue };
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "{}\t{}\t{tenant}\t{}\t{}\t{}\t{}\t{}\t{}",
            object.key,
            object.level,
            block.length,
            block.spans,
            block.traces,
            block.splits,
            rfc3339(block.min_time),
            rfc3339(block.max_time),
        );
    }
    text
}

pub(super) fn json(view: &View) -> String {
    let blocks = every_block(view).into_iter().filter_map(|(tenant, object)| {
        let block = object.block(&tenant)?;
        Some(block_json(&object, block))
    });
    format!("{:#}\n", Value::Array(blocks.collect()))
}

fn block_json(object: &ObjectMeta, block: &TenantBlock) -> Value {
    json!({
        "object": object.key.to_string(),
        "level": object.level,
        "objectBytes": object.size,
        "tenant": block.tenant.as_str(),
        "offset": block.offset,
        "bytes": block.length,
        "spans": block.spans,
        "traces": block.traces,
        "splitTraces": block.splits,
        "startUnixNano": block.min_time.0.to_string(),
        "endUnixNano": block.max_time.0.to_string(),
        "registeredUnixNano": object.created_at.0.to_string(),
    })
}

/// The block with what its footer says.
pub(super) fn describe(object: &ObjectMeta, place: &TenantBlock, block: &Block) -> Value {
    let footer = block.footer();
    let sections: Vec<Value> = footer
        .sections
        .iter()
        .map(|section| {
            json!({
                "kind": clew_block::SectionKind::name_of(section.kind),
                "bytes": section.bytes.end - section.bytes.start,
                "rawBytes": section.raw_length,
            })
        })
        .collect();
    let mut described = block_json(object, place);
    described["formatVersion"] = json!(footer.version);
    described["replaces"] = json!(footer.lineage);
    described["pages"] = json!(block.pages().entries().len());
    described["sections"] = Value::Array(sections);
    described
}
