//! A decoded trace as the spans of a pipeline.

use clew_traceql::EvalError;
use clew_traceql::value::Static;

use super::{Pipeline, Spans};
use crate::structure::{Parent, Structure};
use crate::view::{TraceView, span_values};

/// See the [module](self).
pub(crate) struct Decoded<'p, 'v, 'a> {
    pub(crate) pipeline: &'p Pipeline,
    pub(crate) view: &'v TraceView<'a>,
}

impl Spans for Decoded<'_, '_, '_> {
    fn count(&self) -> u32 {
        u32::try_from(self.view.spans().len()).unwrap_or(u32::MAX)
    }

    fn passing(&self, filter: usize, spans: Option<&[u32]>) -> Result<Vec<u32>, EvalError> {
        let all: Vec<u32>;
        let spans = match spans {
            Some(spans) => spans,
            None => {
                all = (0..self.count()).collect();
                &all
            }
        };
        let Some(leaf) = self.pipeline.filters().get(filter) else { return Ok(Vec::new()) };
        if leaf.filter.is_always() {
            return Ok(spans.to_vec());
        }
        let mut passing = Vec::new();
        for span in spans {
            let Some(values) = span_values(self.view, *span as usize) else { continue };
            if leaf.filter.matches(&values)? {
                passing.push(*span);
            }
        }
        Ok(passing)
    }

    fn value(&self, value: usize, span: u32) -> Result<Static, EvalError> {
        match span_values(self.view, span as usize) {
            Some(values) => self.pipeline.value_on(value, &values),
            None => Ok(Static::Nil),
        }
    }

    fn structure(&self) -> &Structure {
        self.view.structure()
    }

    fn parent(&self, _: u32) -> Option<Parent> {
        None
    }
}
