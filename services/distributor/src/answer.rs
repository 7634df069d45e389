//! The bodies of answers: `ExportTraceServiceResponse` (opentelemetry-proto,
//! `collector/trace/v1/trace_service.proto`) and `google.rpc.Status`, in both encodings.

use clew_model::wire::{put_bytes_field, put_varint_field};
use clew_node::status::retry_info_details;
use serde_json::{Value, json};
use tonic::Code;

use crate::push::PushOutcome;
use crate::refusal::{Refusal, shorten};

/// The longest message about rejected spans, in bytes: it quotes from the request.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// The protobuf answer to a request that was taken. Without rejected spans it is empty: a
/// `partial_success` would be a warning.
pub(crate) fn success_protobuf(outcome: &PushOutcome) -> Vec<u8> {
    let mut out = Vec::new();
    if !outcome.rejected.is_empty() {
        let mut partial = Vec::new();
        put_varint_field(&mut partial, 1, outcome.rejected.total());
        put_bytes_field(&mut partial, 2, message(outcome).as_bytes());
        put_bytes_field(&mut out, 1, &partial);
    }
    out
}

/// The JSON answer to a request that was taken.
pub(crate) fn success_json(outcome: &PushOutcome) -> Value {
    if outcome.rejected.is_empty() {
        return json!({});
    }
    let rejected = outcome.rejected.total().to_string();
    json!({ "partialSuccess": { "rejectedSpans": rejected, "errorMessage": message(outcome) } })
}

fn message(outcome: &PushOutcome) -> String {
    shorten(outcome.rejected.message(), MESSAGE_BYTES_MAX)
}

/// The `google.rpc.Status` of a refusal; with a `RetryInfo` if it can be sent again.
pub(crate) fn status_protobuf(refusal: &Refusal) -> Vec<u8> {
    let (code, message) = (refusal.grpc_code(), refusal.message());
    if let Some(delay) = refusal.retry_after() {
        return retry_info_details(code, &message, delay);
    }
    let mut out = Vec::new();
    put_varint_field(&mut out, 1, number(code).unsigned_abs().into());
    put_bytes_field(&mut out, 2, message.as_bytes());
    out
}

/// The same in protobuf's JSON mapping.
pub(crate) fn status_json(refusal: &Refusal) -> Value {
    let mut status = json!({ "code": number(refusal.grpc_code()), "message": refusal.message() });
    if let Some(delay) = refusal.retry_after() {
        let delay = format!("{}.{:09}s", delay.as_secs(), delay.subsec_nanos());
        let info = "type.googleapis.com/google.rpc.RetryInfo";
        status["details"] = json!([{ "@type": info, "retryDelay": delay }]);
    }
    status
}

fn number(code: Code) -> i32 {
    code as i32
}
