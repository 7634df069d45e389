//! What a query looks for: spans, or relations and counts of spans in one trace. Like filters, each
//! prints itself as TraceQL and judges a generated trace by itself.

use std::collections::BTreeMap;

use super::filter::{Filter, Subject};
use crate::workload::{Span, TraceData, World};

/// What is looked for in a trace.
#[derive(Debug, Clone)]
pub enum Look {
    /// Spans that match.
    Spans(Filter),
    /// Spans that match the second and have an ancestor that matches the first.
    Below(Filter, Filter),
    /// Spans that match, if there are more than so many in the trace.
    MoreThan(Filter, u32),
}

impl Look {
    /// The TraceQL query.
    pub fn to_traceql(&self) -> String {
        match self {
            Look::Spans(filter) => filter.to_traceql(),
            Look::Below(above, below) => {
                format!("{} >> {}", above.to_traceql(), below.to_traceql())
            }
            Look::MoreThan(filter, count) => format!("{} | count() > {count}", filter.to_traceql()),
        }
    }

    /// How many spans of the trace, which lasts so many nanoseconds, the query finds.
    pub fn matched(&self, world: &World, trace: &TraceData<'_>, trace_duration: u64) -> u32 {
        let matches = |filter: &Filter, span: &Span<'_>| {
            filter.matches(Subject { world, trace, trace_duration, span })
        };
        let count = |filter: &Filter| {
            let count = trace.spans.iter().filter(|span| matches(filter, span)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        match self {
            Look::Spans(filter) => count(filter),
            Look::MoreThan(filter, bound) => {
                Some(count(filter)).filter(|count| count > bound).unwrap_or(0)
            }
            Look::Below(above, below) => {
                // Parents come before their children.
                let mut is_below = BTreeMap::new();
                let mut found = 0;
                for span in &trace.spans {
                    let known = span.parent.and_then(|parent| is_below.get(&parent));
                    let (parent_is_below, parent_matches) = known.copied().unwrap_or_default();
                    let here = parent_is_below || parent_matches;
                    found += u32::from(here && matches(below, span));
                    is_below.insert(span.span_id, (here, matches(above, span)));
                }
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::{Field, Test};

    #[test]
    fn looks_print_as_traceql() {
        let failed = Filter::on(Field::Status, Test::IsWord("error"));
        let shop = Filter::on(Field::Resource("service.name"), Test::Is("shop".to_owned()));
        assert_eq!(
            Look::Below(shop.clone(), failed).to_traceql(),
            r#"{ resource.service.name = "shop" } >> { status = error }"#
        );
        assert_eq!(
            Look::MoreThan(shop, 5).to_traceql(),
            r#"{ resource.service.name = "shop" } | count() > 5"#
        );
    }
}
