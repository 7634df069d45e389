//! What the fuzzer runs on every text; the laws run it too, so that it cannot rot.

use clew_traceql::ast::{Body, SpansetExpr, Stage};
use clew_traceql::{
    Filter, parse, parse_field, parse_unchecked, prefilter, referenced_fields, tag_filter,
};

/// Panics if the text breaks the parser, or prints as something else than it is.
pub(crate) fn check_text(text: &str) {
    let _restriction = tag_filter(text).map(|filter| prefilter(&filter));
    let _field = parse_field(text);
    match parse(text) {
        Ok(query) => {
            let _fields = referenced_fields(&query);
            if let Body::Search(pipeline) = &query.body
                && let Some(Stage::Spanset(SpansetExpr::Filter(expr))) = pipeline.stages.first()
            {
                let filter = Filter::new(expr);
                assert!(!(filter.is_never() && filter.is_always()));
                assert!(!filter.is_never() || filter.prefilter().is_none());
            }
        }
        Err(error) => assert!(error.line >= 1 && error.col >= 1 && !error.message.is_empty()),
    }
    if let Ok(query) = parse_unchecked(text) {
        let printed = query.to_string();
        let again = parse_unchecked(&printed);
        assert_eq!(again.as_ref(), Ok(&query), "{printed}");
        assert_eq!(again.map(|query| query.to_string()), Ok(printed));
    }
}
