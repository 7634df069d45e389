//! Syntax trees at random, in the normal form the parser keeps.

use clew_traceql::ast::{
    Aggregate, ArithmeticOp, Body, Form, Hint, MetricsExpr, MetricsFunction, MetricsQuery,
    Pipeline, Query, Relation, ScalarExpr, ScalarFilter, SpansetExpr, SpansetOp, Stage,
};
use clew_traceql::{
    CompareOp, FieldExpr, FieldRef, Intrinsic, Kind, Pattern, Scope, Static, Status,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::span::{EVENT_INTRINSICS, LINK_INTRINSICS, SPAN_INTRINSICS, attribute_name, scalar};

/// What an expression is made of.
#[derive(Clone)]
pub(crate) struct Leaves {
    pub(crate) literal: BoxedStrategy<Static>,
    pub(crate) field: BoxedStrategy<FieldRef>,
}

/// Few fields and values: expressions that often match.
pub(crate) fn small() -> Leaves {
    let intrinsic = [SPAN_INTRINSICS, EVENT_INTRINSICS, LINK_INTRINSICS].concat();
    let scopes = vec![
        None,
        None,
        Some(Scope::Span),
        Some(Scope::Resource),
        Some(Scope::Event),
        Some(Scope::Event),
        Some(Scope::Link),
        Some(Scope::Instrumentation),
    ];
    let attribute = (prop::sample::select(scopes), attribute_name())
        .prop_map(|(scope, name)| FieldRef::attribute(scope, &name));
    let field = prop_oneof![
        3 => attribute,
        1 => prop::sample::select(intrinsic).prop_map(FieldRef::intrinsic),
    ];
    let literal = prop_oneof![9 => scalar(), 1 => Just(Static::Nil)];
    Leaves { literal: literal.boxed(), field: field.boxed() }
}

/// Every name and value that can be written.
pub(crate) fn wide() -> Leaves {
    let number = prop_oneof![
        any::<i64>().prop_map(Static::Int),
        any::<i64>().prop_map(Static::Duration),
        finite().prop_map(Static::Float),
    ];
    let literal = prop_oneof![
        number,
        any::<String>().prop_map(|text| Static::string(&text)),
        any::<bool>().prop_map(Static::Bool),
        prop::sample::select(Status::ALL.to_vec()).prop_map(Static::Status),
        prop::sample::select(Kind::ALL.to_vec()).prop_map(Static::Kind),
        Just(Static::Nil),
    ];
    let scope = prop::option::of(prop::sample::select(Scope::ALL.to_vec()));
    let parent_scope = prop::sample::select(vec![None, Some(Scope::Span), Some(Scope::Resource)]);
    let name = prop_oneof!["[a-z._-]{1,8}", "span\\.[a-z]", any::<String>()]
        .prop_filter("a name has characters", |name| !name.is_empty());
    let intrinsic = (prop::sample::select(Intrinsic::all().collect::<Vec<_>>()), any::<bool>())
        .prop_map(|(intrinsic, short)| FieldRef::Intrinsic {
            intrinsic,
            short: match (intrinsic.short_name(), intrinsic.scoped_name()) {
                (Some(_), Some(_)) => short,
                (short, _) => short.is_some(),
            },
        });
    let field = prop_oneof![
        4 => (scope, name.clone()).prop_map(|(scope, name)| FieldRef::attribute(scope, &name)),
        2 => intrinsic,
        1 => (parent_scope, name).prop_map(|(scope, name)| FieldRef::Attribute {
            parent: true,
            scope,
            name: name.into(),
        }),
        1 => Just(FieldRef::Parent),
    ];
    Leaves { literal: literal.boxed(), field: field.boxed() }
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("a literal is finite", |value| value.is_finite())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    #[allow(clippy::unwrap_used, reason = "the sources are valid")]
    prop_oneof![Just("a"), Just("a|b0"), Just(".*"), Just("[^a]+"), Just(""), Just("\\w\"\n`")]
        .prop_map(|source| Pattern::new(source).unwrap())
}

fn compare_op() -> impl Strategy<Value = CompareOp> {
    prop::sample::select(CompareOp::ALL.to_vec())
}

fn arithmetic_op() -> impl Strategy<Value = ArithmeticOp> {
    prop::sample::select(ArithmeticOp::ALL.to_vec())
}

/// A field compared with a constant, in either order: most of what people write.
fn simple(leaves: &Leaves) -> BoxedStrategy<FieldExpr> {
    let field = leaves.field.clone().prop_map(FieldExpr::Field);
    let literal = leaves.literal.clone().prop_map(FieldExpr::Literal);
    prop_oneof![
        4 => (compare_op(), field.clone(), literal.clone(), any::<bool>()).prop_map(
            |(op, field, literal, swap)| {
                let (left, right) = if swap { (literal, field) } else { (field, literal) };
                FieldExpr::Compare { op, left: Box::new(left), right: Box::new(right) }
            }
        ),
        1 => (any::<bool>(), field.clone(), pattern()).prop_map(|(negated, value, pattern)| {
            FieldExpr::Match { negated, value: Box::new(value), pattern }
        }),
        1 => field,
        1 => literal,
    ]
    .boxed()
}

/// Several comparisons of one field: ranges and lists, which are evaluated with one look-up.
fn on_one_field(leaves: &Leaves) -> BoxedStrategy<FieldExpr> {
    let tests = vec((compare_op(), leaves.literal.clone()), 2..4);
    (leaves.field.clone(), tests, any::<bool>())
        .prop_map(|(field, tests, all)| {
            let terms = tests.into_iter().map(|(op, literal)| FieldExpr::Compare {
                op,
                left: Box::new(FieldExpr::Field(field.clone())),
                right: Box::new(FieldExpr::Literal(literal)),
            });
            if all { FieldExpr::and(terms) } else { FieldExpr::or(terms) }
        })
        .boxed()
}

/// Any expression, well-typed or not.
pub(crate) fn expr(leaves: &Leaves) -> BoxedStrategy<FieldExpr> {
    prop_oneof![4 => simple(leaves), 1 => on_one_field(leaves)]
        .prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                4 => vec(inner.clone(), 2..4).prop_map(FieldExpr::and),
                4 => vec(inner.clone(), 2..4).prop_map(FieldExpr::or),
                3 => inner.clone().prop_map(|expr| FieldExpr::Not(Box::new(expr))),
                1 => inner.clone().prop_map(FieldExpr::negate),
                2 => (arithmetic_op(), inner.clone(), inner.clone()).prop_map(|(op, l, r)| {
                    FieldExpr::Arithmetic { op, left: Box::new(l), right: Box::new(r) }
                }),
                2 => (compare_op(), inner.clone(), inner.clone()).prop_map(|(op, l, r)| {
                    FieldExpr::Compare { op, left: Box::new(l), right: Box::new(r) }
                }),
                1 => (any::<bool>(), inner, pattern()).prop_map(|(negated, value, pattern)| {
                    FieldExpr::Match { negated, value: Box::new(value), pattern }
                }),
            ]
        })
        .boxed()
}

fn aggregate(expr: BoxedStrategy<FieldExpr>) -> BoxedStrategy<Aggregate> {
    prop_oneof![
        Just(Aggregate::Count),
        expr.clone().prop_map(Aggregate::Avg),
        expr.clone().prop_map(Aggregate::Min),
        expr.clone().prop_map(Aggregate::Max),
        expr.prop_map(Aggregate::Sum),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Static> {
    prop_oneof![any::<i64>().prop_map(Static::Int), finite().prop_map(Static::Float)].boxed()
}

fn scalar_expr(
    expr: BoxedStrategy<FieldExpr>,
    pipeline: BoxedStrategy<Pipeline>,
) -> BoxedStrategy<ScalarExpr> {
    let quantity = prop_oneof![number(), any::<i64>().prop_map(Static::Duration)];
    prop_oneof![
        2 => quantity.prop_map(ScalarExpr::Literal),
        2 => aggregate(expr.clone()).prop_map(ScalarExpr::Aggregate),
        1 => (pipeline, aggregate(expr)).prop_map(|(pipeline, aggregate)| {
            ScalarExpr::Pipeline(Box::new(pipeline), aggregate)
        }),
    ]
    .prop_recursive(2, 6, 2, |inner| {
        (arithmetic_op(), inner.clone(), inner).prop_map(|(op, left, right)| {
            ScalarExpr::Arithmetic { op, left: Box::new(left), right: Box::new(right) }
        })
    })
    .boxed()
}

fn spanset_op() -> impl Strategy<Value = SpansetOp> {
    let relations = [
        Relation::Descendant,
        Relation::Ancestor,
        Relation::Child,
        Relation::Parent,
        Relation::Sibling,
    ];
    let mut ops = vec![SpansetOp::And, SpansetOp::Or];
    for relation in relations {
        for form in [Form::Plain, Form::Negated, Form::Union] {
            ops.push(SpansetOp::Structural(relation, form));
        }
    }
    prop::sample::select(ops)
}

/// Spansets in which pipelines of the given kind may stand in parentheses.
fn spanset(
    expr: BoxedStrategy<FieldExpr>,
    inner: Option<BoxedStrategy<Pipeline>>,
) -> BoxedStrategy<SpansetExpr> {
    let filter = expr.prop_map(SpansetExpr::Filter).boxed();
    let leaf = match inner {
        None => filter,
        Some(pipeline) => {
            let wrapped = pipeline
                .prop_filter("one spanset needs no parentheses", |pipeline| {
                    !matches!(pipeline.stages.as_slice(), [Stage::Spanset(_)])
                })
                .prop_map(|pipeline| SpansetExpr::Pipeline(Box::new(pipeline)));
            prop_oneof![3 => filter, 1 => wrapped].boxed()
        }
    };
    leaf.prop_recursive(2, 6, 2, |side| {
        (spanset_op(), side.clone(), side).prop_map(|(op, left, right)| SpansetExpr::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        })
    })
    .boxed()
}

fn stages(
    leaves: &Leaves,
    expr: BoxedStrategy<FieldExpr>,
    inner: Option<BoxedStrategy<Pipeline>>,
) -> BoxedStrategy<Pipeline> {
    let spanset = spanset(expr.clone(), inner.clone());
    let filters = inner.unwrap_or_else(|| expr.clone().prop_map(Pipeline::filter).boxed());
    let scalar = scalar_expr(expr.clone(), filters);
    let stage = prop_oneof![
        4 => spanset.prop_map(Stage::Spanset),
        2 => (compare_op(), scalar.clone(), scalar)
            .prop_map(|(op, left, right)| Stage::Scalar(ScalarFilter { op, left, right })),
        1 => expr.prop_map(Stage::By),
        1 => Just(Stage::Coalesce),
        1 => vec(leaves.field.clone(), 1..3).prop_map(Stage::Select),
    ];
    vec(stage, 1..4)
        .prop_filter("a leading pipeline is the pipeline itself", |stages| {
            !matches!(stages.first(), Some(Stage::Spanset(SpansetExpr::Pipeline(_))))
        })
        .prop_map(|stages| Pipeline { stages })
        .boxed()
}

fn function(leaves: &Leaves, expr: BoxedStrategy<FieldExpr>) -> BoxedStrategy<MetricsFunction> {
    let field = leaves.field.clone();
    let arguments = (prop::option::of((any::<i64>(), prop::option::of(any::<(i64, i64)>()))), expr);
    prop_oneof![
        Just(MetricsFunction::Rate),
        Just(MetricsFunction::CountOverTime),
        field.clone().prop_map(MetricsFunction::MinOverTime),
        field.clone().prop_map(MetricsFunction::MaxOverTime),
        field.clone().prop_map(MetricsFunction::AvgOverTime),
        field.clone().prop_map(MetricsFunction::SumOverTime),
        field.clone().prop_map(MetricsFunction::HistogramOverTime),
        (field, vec(finite(), 1..3))
            .prop_map(|(field, qs)| MetricsFunction::QuantileOverTime(field, qs)),
        arguments.prop_map(|(arguments, selection)| MetricsFunction::Compare {
            selection,
            top: arguments.map(|(top, _)| top),
            window: arguments.and_then(|(_, window)| window),
        }),
    ]
    .boxed()
}

fn metrics(
    leaves: &Leaves,
    expr: BoxedStrategy<FieldExpr>,
    pipeline: BoxedStrategy<Pipeline>,
) -> BoxedStrategy<MetricsExpr> {
    let by = vec(leaves.field.clone(), 0..3);
    let query = (pipeline, function(leaves, expr), by).prop_map(|(pipeline, function, by)| {
        MetricsExpr::Query(Box::new(MetricsQuery { pipeline, function, by }))
    });
    let op = prop::sample::select(vec![
        ArithmeticOp::Add,
        ArithmeticOp::Sub,
        ArithmeticOp::Mul,
        ArithmeticOp::Div,
    ]);
    query
        .prop_recursive(3, 8, 2, move |inner| {
            let other = prop_oneof![inner.clone(), number().prop_map(MetricsExpr::Number)];
            prop_oneof![
                (op.clone(), inner.clone(), other, any::<bool>()).prop_map(|(op, a, b, swap)| {
                    let (left, right) = if swap { (b, a) } else { (a, b) };
                    MetricsExpr::Arithmetic { op, left: Box::new(left), right: Box::new(right) }
                }),
                (inner.clone(), any::<bool>(), any::<i64>()).prop_map(|(input, top, limit)| {
                    MetricsExpr::Rank { input: Box::new(input), top, limit }
                }),
                (inner, compare_op(), number()).prop_map(|(input, op, value)| {
                    MetricsExpr::Threshold { input: Box::new(input), op, value }
                }),
            ]
        })
        .boxed()
}

/// Any query, well-typed or not.
pub(crate) fn query() -> BoxedStrategy<Query> {
    let leaves = wide();
    let expr = expr(&leaves);
    let flat = stages(&leaves, expr.clone(), None);
    let nested = stages(&leaves, expr.clone(), Some(flat.clone()));
    let hint = ("[a-z_]{1,8}", leaves.literal.clone())
        .prop_map(|(name, value)| Hint { name: name.into(), value });
    let body = prop_oneof![
        2 => nested.prop_map(Body::Search),
        1 => metrics(&leaves, expr, flat).prop_map(Body::Metrics),
    ];
    (body, vec(hint, 0..3)).prop_map(|(body, hints)| Query { body, hints }).boxed()
}
