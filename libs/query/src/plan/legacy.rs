//! The search form that is older than TraceQL: `tags=key=value`, each to be found somewhere in
//! the trace.

use std::sync::Arc;

use clew_traceql::eval::SpanValues;
use clew_traceql::plan::{Condition, Field, Intrinsic, Prefilter, Scope, Test};
use clew_traceql::value::{CompareOp, Static, Status, compare_any};
use regex::Regex;

use crate::QueryError;

/// One `key=value`, true for a trace if it holds for some span.
#[derive(Debug, Clone)]
pub(crate) struct TagRule {
    /// Where to look; any of them.
    fields: Vec<Field>,
    test: RuleTest,
}

#[derive(Debug, Clone)]
enum RuleTest {
    /// Text that contains this. Kept as an expression, which is what indexes take.
    Contains(Arc<Regex>),
    /// Equal to one of these: the text, and what it means as a number or truth value.
    OneOf(Vec<Static>),
}

impl TagRule {
    /// The rule of a pair as the user wrote it.
    ///
    /// # Errors
    /// [`QueryError::BadRequest`] for a status that is none.
    pub(crate) fn new(key: &str, value: &str) -> Result<TagRule, QueryError> {
        let rule = match key {
            "service.name" => {
                let field = Field::Attribute(Scope::Resource, Arc::from(key));
                TagRule { fields: vec![field], test: contains(value)? }
            }
            "name" => intrinsic(Intrinsic::Name, contains(value)?),
            "root.name" => intrinsic(Intrinsic::RootName, contains(value)?),
            "root.service.name" => intrinsic(Intrinsic::RootService, contains(value)?),
            "status.code" => {
                let status = Status::from_word(value).ok_or_else(|| {
                    QueryError::bad("tags", format!("status.code is ok, error or unset: {value}"))
                })?;
                intrinsic(Intrinsic::Status, RuleTest::OneOf(vec![Static::Status(status)]))
            }
            _ => TagRule {
                fields: [Scope::Span, Scope::Resource]
                    .map(|scope| Field::Attribute(scope, Arc::from(key)))
                    .to_vec(),
                test: RuleTest::OneOf(meanings(value)),
            },
        };
        Ok(rule)
    }

    /// The spans for which the rule holds, as an index finds them.
    pub(crate) fn prefilter(&self) -> Prefilter {
        let tests: Vec<Test> = match &self.test {
            RuleTest::Contains(regex) => vec![Test::Matches(Arc::clone(regex))],
            RuleTest::OneOf(values) => values.iter().cloned().map(Test::Equals).collect(),
        };
        let conditions = self.fields.iter().flat_map(|field| {
            tests.iter().map(|test| {
                Prefilter::Condition(Condition { field: field.clone(), test: test.clone() })
            })
        });
        Prefilter::Or(conditions.collect())
    }

    /// Whether the rule holds for a span.
    pub(crate) fn matches(&self, span: &dyn SpanValues) -> bool {
        self.fields.iter().any(|field| {
            let value = match field {
                Field::Attribute(scope, name) => span.attribute(*scope, name),
                Field::Intrinsic(intrinsic) => span.intrinsic(*intrinsic),
            };
            value.is_some_and(|value| self.test.holds(&value))
        })
    }
}

impl RuleTest {
    fn holds(&self, value: &Static) -> bool {
        match (self, value) {
            (RuleTest::Contains(regex), Static::String(text)) => regex.is_match(text),
            (RuleTest::Contains(_), Static::Array(elements)) => {
                elements.iter().any(|element| self.holds(element))
            }
            (RuleTest::Contains(_), _) => false,
            (RuleTest::OneOf(wanted), value) => {
                wanted.iter().any(|wanted| compare_any(CompareOp::Eq, value, wanted))
            }
        }
    }
}

fn intrinsic(intrinsic: Intrinsic, test: RuleTest) -> TagRule {
    TagRule { fields: vec![Field::Intrinsic(intrinsic)], test }
}

fn contains(value: &str) -> Result<RuleTest, QueryError> {
    let regex = Regex::new(&regex::escape(value))
        .map_err(|error| QueryError::bad("tags", error.to_string()))?;
    Ok(RuleTest::Contains(Arc::new(regex)))
}

/// What the text of a tag can mean. The legacy form has no types, so 500 finds the number too.
fn meanings(value: &str) -> Vec<Static> {
    let mut meanings = vec![Static::string(value)];
    if let Ok(number) = value.parse::<i64>() {
        meanings.push(Static::Int(number));
    } else if let Ok(number) = value.parse::<f64>()
        && number.is_finite()
    {
        meanings.push(Static::Float(number));
    }
    if let Ok(truth) = value.parse::<bool>() {
        meanings.push(Static::Bool(truth));
    }
    meanings
}
