//! Which filters the spans pass that a pipeline leaves, as far as its text tells.

use clew_traceql::ast::Form;

use super::{Scalar, ScalarFilter, Spansets, Stage};

/// See [`super::Pipeline::result`].
#[derive(Debug, Default)]
pub(super) struct ResultFilters {
    pub(super) filters: Vec<usize>,
    pub(super) all: bool,
}

impl ResultFilters {
    pub(super) fn of(stages: &[Stage]) -> ResultFilters {
        of_stages(stages).unwrap_or_default()
    }
}

/// `None` if it is not known, or if no stage leaves anything out.
fn of_stages(stages: &[Stage]) -> Option<ResultFilters> {
    let mut result: Option<ResultFilters> = None;
    for stage in stages {
        match stage {
            Stage::Spansets(spansets) => {
                let mut next = of_spansets(spansets)?;
                // What the stage before left out is left out.
                next.all &= result.is_none();
                result = Some(next);
            }
            Stage::Scalar(ScalarFilter { left, right, .. }) => {
                if finds_spans(left) || finds_spans(right) {
                    return None;
                }
            }
            Stage::By { .. } | Stage::Coalesce => {}
        }
    }
    result
}

fn of_spansets(spansets: &Spansets) -> Option<ResultFilters> {
    match spansets {
        Spansets::Filter(filter) => Some(ResultFilters { filters: vec![*filter], all: true }),
        Spansets::Both(left, right) | Spansets::Either(left, right) => {
            let (left, right) = (of_spansets(left)?, of_spansets(right)?);
            let filters = [left.filters, right.filters].concat();
            Some(ResultFilters { filters, all: left.all && right.all })
        }
        Spansets::Related { how, left, right } => {
            let mut filters = of_spansets(right)?.filters;
            if how.form == Form::Union {
                filters.append(&mut of_spansets(left)?.filters);
            }
            Some(ResultFilters { filters, all: false })
        }
        Spansets::Pipeline(stages) => {
            let inner = of_stages(stages)?;
            // One side of a combination may find nothing, and the whole still something.
            Some(ResultFilters { all: false, ..inner })
        }
    }
}

/// Whether spans are left for a scalar's sake.
fn finds_spans(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Literal(_) | Scalar::Aggregate(_) => false,
        Scalar::Pipeline(..) => true,
        Scalar::Arithmetic { left, right, .. } => finds_spans(left) || finds_spans(right),
    }
}
