//! How a search was run, as JSON.

use serde_json::{Value, json};

use crate::root::{Explanation, StepCost};

/// The plan, and what each step kept, read and took.
pub(crate) fn explained(query: &str, explanation: &Explanation) -> Value {
    // As it was understood, not as it was written.
    let query = clew_traceql::parse(query).map_or_else(|_| query.to_owned(), |q| q.to_string());
    let steps: Vec<Value> = explanation.steps.iter().map(step).collect();
    json!({ "query": query, "plan": explanation.plan, "steps": steps })
}

fn step(cost: &StepCost) -> Value {
    let inspected = &cost.inspected;
    json!({
        "step": cost.step,
        "places": cost.places,
        "candidates": inspected.candidates,
        "kept": cost.kept,
        "inspectedTraces": inspected.traces,
        "inspectedSpans": inspected.spans,
        "inspectedBytes": inspected.bytes,
        "reads": inspected.reads,
        "readBytes": inspected.read_bytes,
        "micros": cost.nanos / 1_000,
    })
}
