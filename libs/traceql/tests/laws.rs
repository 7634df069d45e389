//! Laws that hold for every query and every span.

use clew_traceql::{Filter, parse, parse_unchecked, prefilter, tag_filter};
use proptest::prelude::*;

#[path = "laws/entry.rs"]
mod entry;
#[path = "laws/naive.rs"]
mod naive;
#[path = "laws/span.rs"]
mod span;
#[path = "laws/tree.rs"]
mod tree;

/// Text that is often nearly a query.
fn token_soup() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "(",
        ")",
        "|",
        "||",
        "&&",
        "!",
        "-",
        "=",
        "!=",
        "=~",
        "!~",
        "<",
        ">",
        ">>",
        "~",
        "&>>",
        "!<<",
        "+",
        "*",
        "^",
        ",",
        ".a",
        "span.b",
        "event.c",
        "parent.d",
        "parent",
        "name",
        "status",
        "trace:id",
        "duration",
        "error",
        "server",
        "true",
        "nil",
        "1",
        "2.5",
        "1h3m",
        "\"x\"",
        "`y`",
        "count()",
        "avg(",
        "by(",
        "select(",
        "coalesce()",
        "rate()",
        "topk(",
        "quantile_over_time(",
        "compare(",
        "with(",
        "with(a=1)",
        "minInt",
        "{ .a }",
        "{}",
        "({ } | rate())",
        "9223372036854775808",
        "\"",
        "\\",
        "//",
        "/*",
        "\n",
        "é",
    ]);
    prop::collection::vec(token, 0..14).prop_map(|tokens| tokens.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_parses_to_the_same_tree(query in tree::query()) {
        let printed = query.to_string();
        prop_assert_eq!(parse_unchecked(&printed), Ok(query), "{}", printed);
    }

    #[test]
    fn a_checked_query_is_what_the_unchecked_one_is(query in tree::query()) {
        if let Ok(checked) = parse(&query.to_string()) {
            prop_assert_eq!(checked, query);
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        entry::check_text(&text);
    }

    #[test]
    fn no_tokens_break_the_parser(text in token_soup()) {
        entry::check_text(&text);
        entry::check_text(&format!("{{ {text} }}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_means_what_the_rules_say(
        expr in tree::expr(&tree::small()),
        spans in prop::collection::vec(span::any_span(), 1..4),
    ) {
        let filter = Filter::new(&expr);
        let prefilter = prefilter(&expr);
        for span in &spans {
            let matches = filter.matches(span);
            if let Ok(expected) = naive::matches(&expr, span) {
                prop_assert_eq!(matches.clone(), Ok(expected), "{}", expr);
            }
            if matches == Ok(true) {
                prop_assert!(naive::passes(&prefilter, span), "{}: {:?}", expr, prefilter);
                prop_assert!(!filter.is_never());
            }
            if matches == Ok(false) {
                prop_assert!(!filter.is_always());
            }
        }
    }

    #[test]
    fn a_tag_filter_keeps_what_the_query_matches(
        expr in tree::expr(&tree::small()),
        span in span::any_span(),
        cut in 0usize..3,
    ) {
        let unfinished = ["", " && .x = ", " && (.y ="][cut];
        let text = format!("{{ {expr}{unfinished}");
        let text = if cut == 0 { format!("{text} }}") } else { text };
        // Of an ill-typed query the wrong terms are left out, even under a `!`.
        if parse(&format!("{{ {expr} }}")).is_ok()
            && let Some(filter) = tag_filter(&text)
            && naive::matches(&expr, &span) == Ok(true)
        {
            prop_assert_eq!(naive::matches(&filter, &span), Ok(true), "{} -> {}", text, filter);
        }
    }
}
