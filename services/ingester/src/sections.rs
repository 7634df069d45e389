//! What the bytes of flushed blocks are spent on, section by section: the index is what costs, and
//! this says where.

use std::collections::BTreeMap;

use clew_block::{Footer, SectionKind};

/// The footer itself, and sections of a later format.
const REST: &str = "rest";

/// Stored bytes by name of section.
#[derive(Debug, Default)]
pub(crate) struct SectionBytes(BTreeMap<&'static str, u64>);

impl SectionBytes {
    /// Adds the sections of a block.
    pub(crate) fn add(&mut self, footer: &Footer) {
        let mut rest = footer.block_length();
        for kind in SectionKind::ALL {
            // A block without a section spends nothing on it.
            let Ok(range) = footer.section_range(kind) else { continue };
            let bytes = range.end - range.start;
            *self.0.entry(kind.as_str()).or_default() += bytes;
            rest = rest.saturating_sub(bytes);
        }
        *self.0.entry(REST).or_default() += rest;
    }

    /// Name and bytes of every section.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, bytes)| (*name, *bytes))
    }
}

#[cfg(test)]
mod tests {
    use clew_block::{BlockMeta, BlockOptions, BlockWriter, Heritage, Origin};
    use clew_model::TenantId;

    use super::*;

    #[test]
    fn sections_and_the_rest_are_the_whole_block() {
        let tenant = TenantId::parse("shop").unwrap();
        let meta = BlockMeta {
            tenant,
            origin: Origin::default(),
            lineage: Vec::new(),
            heritage: Heritage::default(),
        };
        let writer = BlockWriter::new(&BlockOptions::default(), meta, 1).unwrap();
        let block = writer.finish().unwrap();
        let footer = Footer::parse(&block).unwrap();
        let mut sections = SectionBytes::default();
        sections.add(&footer);
        sections.add(&footer);
        let sum: u64 = sections.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, 2 * block.len() as u64);
        let known = footer.sections.iter().filter(|section| !section.bytes.is_empty()).count();
        let told = sections.iter().filter(|(_, bytes)| *bytes > 0).count();
        assert_eq!(told, known + 1, "a section is not told apart: {sections:?}");
    }
}
