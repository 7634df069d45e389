//! How a search is run, in words: what is looked up, what decides, what is asked of fragments.

use std::ops::Bound;

use clew_traceql::plan::{Condition, Field, Prefilter, Test};

use crate::pipeline::TraceCondition;
use crate::plan::{Matcher, SearchPlan};

/// Parts of a combination that are spelled out.
const PARTS_MAX: usize = 8;

impl SearchPlan {
    /// The plan, a line each.
    pub fn explain(&self) -> Vec<String> {
        let selection = self.selection();
        let mut lines = Vec::new();
        if self.is_empty() {
            return vec!["nothing can match: no place is read".to_owned()];
        }
        let decides = |exact: &str, decisive: bool| {
            if decisive {
                format!("where the index looks {exact} up exactly, it decides alone")
            } else {
                "matches are decided on decoded traces".to_owned()
            }
        };
        match self.matcher() {
            Matcher::Filter(_) => {
                for condition in &selection.conditions {
                    lines.push(format!("look up spans: {}", of_prefilter(condition)));
                }
                lines.push(decides("this", selection.decisive));
            }
            Matcher::Pipeline(pipeline) => {
                for (at, leaf) in pipeline.filters().iter().enumerate() {
                    let prefilter = of_prefilter(&leaf.prefilter);
                    lines.push(format!("filter {}: look up spans: {prefilter}", at + 1));
                }
                lines.push(format!("candidates: {}", of_traces(pipeline.condition())));
                lines.push(decides("every filter", selection.decisive));
            }
            Matcher::Tags(rules) if rules.is_empty() => {
                lines.push("every trace matches".to_owned());
            }
            Matcher::Tags(_) => {
                for condition in &selection.conditions {
                    lines.push(format!("some span: {}", of_prefilter(condition)));
                }
                lines.push(decides("", false));
            }
        }
        let judged = if self.takes_pieces() {
            "put together from what the indexes tell, or gathered where they do not,"
        } else {
            "gathered"
        };
        lines.push(format!(
            "traces that may lie in several places ({}): {judged} and judged whole if a fragment has {}",
            selection.split.ids().len(),
            of_prefilter(&selection.fragment)
        ));
        lines.push(format!("newest {} traces, newest places first", self.limit()));
        lines
    }
}

fn of_traces(condition: &TraceCondition) -> String {
    let joined = |parts: &[TraceCondition], word: &str| {
        let parts: Vec<String> = parts.iter().map(of_traces).collect();
        format!("({})", parts.join(word))
    };
    match condition {
        TraceCondition::All => "every trace".to_owned(),
        TraceCondition::None => "no trace".to_owned(),
        TraceCondition::Has(filter) => format!("traces with filter {}", filter + 1),
        TraceCondition::And(parts) => joined(parts, " and "),
        TraceCondition::Or(parts) => joined(parts, " or "),
    }
}

fn of_prefilter(prefilter: &Prefilter) -> String {
    let joined = |parts: &[Prefilter], word: &str| {
        let mut shown: Vec<String> = parts.iter().take(PARTS_MAX).map(of_prefilter).collect();
        if parts.len() > PARTS_MAX {
            shown.push(format!("{} more", parts.len() - PARTS_MAX));
        }
        format!("({})", shown.join(word))
    };
    match prefilter {
        Prefilter::All => "every span".to_owned(),
        Prefilter::None => "no span".to_owned(),
        Prefilter::Condition(condition) => of_condition(condition),
        Prefilter::And(parts) => joined(parts, " and "),
        Prefilter::Or(parts) => joined(parts, " or "),
    }
}

fn of_condition(condition: &Condition) -> String {
    let field = match &condition.field {
        Field::Attribute(scope, name) => format!("{}.{name}", scope.as_str()),
        Field::Intrinsic(intrinsic) => intrinsic
            .scoped_name()
            .or_else(|| intrinsic.short_name())
            .unwrap_or_default()
            .to_owned(),
    };
    match &condition.test {
        Test::Exists => format!("{field} is there"),
        Test::Equals(value) => format!("{field} = {value}"),
        Test::NumberRange(low, high) => format!("{field} in {}", range(low, high)),
        Test::StringRange(low, high) => format!("{field} in {}", range(low, high)),
        Test::Matches(regex) => format!("{field} matches {regex}"),
    }
}

fn range<T: std::fmt::Debug>(low: &Bound<T>, high: &Bound<T>) -> String {
    let low = match low {
        Bound::Included(value) => format!("[{value:?}"),
        Bound::Excluded(value) => format!("({value:?}"),
        Bound::Unbounded => "(".to_owned(),
    };
    let high = match high {
        Bound::Included(value) => format!("{value:?}]"),
        Bound::Excluded(value) => format!("{value:?})"),
        Bound::Unbounded => ")".to_owned(),
    };
    format!("{low}, {high}")
}

#[cfg(test)]
mod tests {
    use clew_proto::query::v1::SearchRequest;

    use super::*;

    fn explain(query: &str) -> Vec<String> {
        let request =
            SearchRequest { query: query.to_owned(), limit: 20, ..SearchRequest::default() };
        SearchPlan::from_request(&request).unwrap().explain()
    }

    #[test]
    fn a_plan_says_what_is_looked_up_and_what_decides() {
        let lines = explain("{ resource.service.name = `a` } >> { status = error } | count() > 1");
        assert_eq!(
            lines[..4],
            [
                "filter 1: look up spans: resource.service.name = \"a\"",
                "filter 2: look up spans: span:status = error",
                "candidates: (traces with filter 1 and traces with filter 2)",
                "where the index looks every filter up exactly, it decides alone",
            ]
        );
        assert!(lines[4].ends_with("a fragment has resource.service.name = \"a\""), "{}", lines[4]);
        let lines = explain("{ duration > 5ms && .a =~ `x.*` } | by(name)");
        assert!(lines[0].contains("span:duration in (5000000.0, )"), "{}", lines[0]);
        assert!(lines.contains(&"matches are decided on decoded traces".to_owned()));
        assert_eq!(explain("{ false }"), ["nothing can match: no place is read"]);
    }
}
