//! A server that is right by being simple, until it is told to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use clew_model::otlp::view::resource_attributes;
use clew_model::otlp::{AnyValueView, KeyValueView, SpanView};
use clew_model::trace::SpanRecord;
use clew_model::{SpanId, Trace, TraceId, TraceSummary, wire};
use clew_node::Tasks;
use clew_traceql::ast::{Body as QueryBody, FieldExpr, Pipeline, ScalarExpr, SpansetExpr, Stage};
use clew_traceql::{Filter, Static, parse};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::values::Values;

/// What Tempo calls the service of a root that is missing.
const NO_ROOT: &str = "<root span not yet received>";

/// How exports are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    /// Stored and acknowledged.
    Always,
    /// Every third attempt is not stored, with a request to come back.
    RefusesThird,
    /// Every third attempt is stored, and answered as if it was not.
    ForgetsThirdAnswer,
    /// Of every third attempt half of the spans are stored: partial success.
    RejectsThird,
    /// Every third attempt is refused for good, though stored.
    BreaksThird,
}

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    LosesSpan,
    DoublesSpan,
    ChangesSpan,
    LosesTrace,
    SwapsResults,
    RepeatsResult,
    DropsResult,
    Partial,
    MixesTenants,
    InventsTraces,
    ForgetsTag,
}

struct Store {
    answering: Answering,
    fault: Mutex<Fault>,
    attempts: AtomicU64,
    tenants: Mutex<BTreeMap<String, BTreeMap<TraceId, Trace>>>,
}

/// The server, listening on a port of its own.
pub(crate) struct Server {
    store: Arc<Store>,
    port: u16,
}

impl Server {
    pub(crate) async fn start(answering: Answering, tasks: &Tasks) -> Server {
        let store = Arc::new(Store {
            answering,
            fault: Mutex::new(Fault::None),
            attempts: AtomicU64::new(0),
            tenants: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/traces", post(export_http))
            .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export_grpc))
            .route("/api/v2/traces/{id}", get(by_id))
            .route("/api/search", get(search))
            .route("/api/v2/search/tags", get(tag_names))
            .route("/api/v2/search/tag/{tag}/values", get(tag_values))
            .with_state(Arc::clone(&store));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server { store, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.store.fault.lock() = fault;
    }

    pub(crate) fn span_count(&self) -> u64 {
        let tenants = self.store.tenants.lock();
        tenants.values().flat_map(BTreeMap::values).map(|trace| trace.spans.len() as u64).sum()
    }
}

fn tenant(headers: &HeaderMap) -> String {
    assert_eq!(headers["x-test"], "yes");
    headers.get("x-scope-orgid").map_or_else(String::new, |id| id.to_str().unwrap().to_owned())
}

impl Store {
    fn put(&self, tenant: &str, body: &Bytes, half: bool) {
        let mut tenants = self.tenants.lock();
        let stored = tenants.entry(tenant.to_owned()).or_default();
        for (at, mut trace) in Trace::decode(body).unwrap().into_iter().enumerate() {
            if half && at % 2 == 0 {
                continue;
            }
            let id = trace.id;
            if let Some(known) = stored.remove(&id) {
                trace = Trace::merge([known, trace]).unwrap();
            }
            stored.insert(id, trace);
        }
    }

    /// Stores a request or not, and says how to answer: gRPC code, HTTP code, rejected spans.
    fn export(&self, tenant: &str, body: &Bytes) -> (u16, u16, u64) {
        let third = self.attempts.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        let answering = if third { self.answering } else { Answering::Always };
        if answering != Answering::RefusesThird {
            self.put(tenant, body, answering == Answering::RejectsThird);
        }
        match answering {
            Answering::Always => (0, 200, 0),
            Answering::RefusesThird => (8, 429, 0),
            Answering::ForgetsThirdAnswer => (8, 503, 0),
            Answering::RejectsThird => (0, 200, 17),
            Answering::BreaksThird => (3, 400, 0),
        }
    }

    /// The traces of a tenant, as a faulty server would have them.
    fn traces(&self, tenant: &str) -> Vec<Trace> {
        let tenants = self.tenants.lock();
        let mut traces: Vec<Trace> = match *self.fault.lock() {
            Fault::MixesTenants => tenants.values().flat_map(BTreeMap::values).cloned().collect(),
            _ => tenants[tenant].values().cloned().collect(),
        };
        match *self.fault.lock() {
            Fault::LosesTrace => {
                traces.pop();
            }
            Fault::LosesSpan => {
                traces[0].spans.pop();
            }
            Fault::DoublesSpan => {
                let span = traces[0].spans[0].clone();
                traces[0].spans.push(span);
            }
            Fault::ChangesSpan => {
                let span = &mut traces[0].spans[0];
                let mut bytes = span.bytes.to_vec();
                // Field 5 again: the last name counts.
                wire::put_bytes_field(&mut bytes, 5, b"another name");
                span.bytes = bytes.into();
            }
            _ => {}
        }
        traces
    }

    fn trace(&self, tenant: &str, id: TraceId) -> Option<Trace> {
        if self.has(Fault::None) {
            return self.tenants.lock()[tenant].get(&id).cloned();
        }
        let traces = self.traces(tenant);
        let found = traces.iter().find(|trace| trace.id == id).cloned();
        found.or_else(|| traces.into_iter().next().filter(|_| self.has(Fault::InventsTraces)))
    }

    fn has(&self, fault: Fault) -> bool {
        *self.fault.lock() == fault
    }
}

fn response(rejected: u64) -> Vec<u8> {
    let (mut partial, mut body) = (Vec::new(), Vec::new());
    if rejected > 0 {
        wire::put_varint_field(&mut partial, 1, rejected);
        wire::put_bytes_field(&mut partial, 2, b"not these");
        wire::put_bytes_field(&mut body, 1, &partial);
    }
    body
}

async fn export_http(State(store): State<Arc<Store>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = to_bytes(body, usize::MAX).await.unwrap();
    if parts.headers.get("content-encoding").is_some_and(|name| name == "zstd") {
        body = zstd::stream::decode_all(&body[..]).unwrap().into();
    }
    let (_, code, rejected) = store.export(&tenant(&parts.headers), &body);
    let status = StatusCode::from_u16(code).unwrap();
    (status, [("retry-after", "0")], response(rejected)).into_response()
}

async fn export_grpc(State(store): State<Arc<Store>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    assert_eq!(body[0], 0, "not compressed");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(body.len(), 5 + length);
    let (code, _, rejected) = store.export(&tenant(&parts.headers), &body.slice(5..));
    let message = response(rejected);
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    if code == 8 {
        // A google.rpc.Status with a RetryInfo of no delay.
        let details = "GioKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8";
        trailers.insert("grpc-status-details-bin", details.parse().unwrap());
    }
    let body = match code {
        0 => Full::new(Bytes::from(frame)),
        _ => Full::new(Bytes::new()),
    };
    let body = Body::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

async fn by_id(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = TraceId::parse_padded(&id).unwrap();
    let Some(trace) = store.trace(&tenant(&headers), id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut body = Vec::new();
    wire::put_bytes_field(&mut body, 1, &trace.encode());
    body.into_response()
}

/// The spans that the forms of queries that the tool asks find.
fn matching(pipeline: &Pipeline, trace: &Trace, summary: &TraceSummary) -> Vec<SpanId> {
    let views: Vec<SpanView<'_>> =
        trace.spans.iter().map(|record| SpanView::parse(&record.bytes).unwrap()).collect();
    let passing = |filter: &FieldExpr| -> Vec<SpanId> {
        let filter = Filter::new(filter);
        let passes = |record: &SpanRecord| filter.matches(&Values::new(record, summary)).unwrap();
        let both = trace.spans.iter().zip(&views);
        both.filter(|(record, _)| passes(record)).map(|(_, view)| view.span().unwrap()).collect()
    };
    let parent =
        |id: SpanId| views.iter().find(|view| view.span() == Some(id)).and_then(SpanView::parent);
    match pipeline.stages.as_slice() {
        [Stage::Spanset(SpansetExpr::Filter(filter))] => passing(filter),
        [Stage::Spanset(SpansetExpr::Binary { op, left, right })] => {
            assert_eq!(op.as_str(), ">>");
            let (SpansetExpr::Filter(above), SpansetExpr::Filter(below)) = (&**left, &**right)
            else {
                panic!("no filters: {left} {right}");
            };
            let above = passing(above);
            let is_below = |id: &SpanId| {
                std::iter::successors(parent(*id), |id| parent(*id)).any(|id| above.contains(&id))
            };
            passing(below).into_iter().filter(is_below).collect()
        }
        [Stage::Spanset(SpansetExpr::Filter(filter)), Stage::Scalar(scalar)] => {
            let ScalarExpr::Literal(Static::Int(bound)) = scalar.right else { panic!("{scalar}") };
            let found = passing(filter);
            if i64::try_from(found.len()).unwrap() > bound { found } else { Vec::new() }
        }
        _ => panic!("an unknown form: {pipeline}"),
    }
}

async fn search(
    State(store): State<Arc<Store>>,
    Query(parameters): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> String {
    let query = parse(&parameters["q"]).unwrap();
    let QueryBody::Search(pipeline) = &query.body else { panic!("no search: {query}") };
    let number = |name: &str| parameters[name].parse::<usize>().unwrap();
    assert!(number("start") < number("end"));
    let mut found = Vec::new();
    for trace in store.traces(&tenant(&headers)) {
        let summary = trace.summary();
        let matched = matching(pipeline, &trace, &summary);
        if !matched.is_empty() {
            found.push((std::cmp::Reverse(summary.start), trace.id, matched, summary));
        }
    }
    found.sort_by_key(|(start, id, ..)| (*start, *id));
    found.truncate(number("limit"));
    let mut traces: Vec<Value> = found
        .iter()
        .map(|(_, id, matched, summary)| {
            let spans: Vec<_> = matched.iter().take(number("spss")).collect();
            let spans: Vec<_> =
                spans.iter().map(|id| json!({ "spanID": id.to_string() })).collect();
            let stats: serde_json::Map<String, Value> = summary
                .services
                .iter()
                .map(|service| {
                    let counts = json!({
                        "spanCount": service.spans, "errorCount": service.errors
                    });
                    (service.name.to_string(), counts)
                })
                .collect();
            json!({
                "traceID": id.to_short_hex(),
                "rootServiceName": summary.root_service.as_deref().unwrap_or(NO_ROOT),
                "rootTraceName": summary.root_name.as_deref().unwrap_or_default(),
                "startTimeUnixNano": summary.start.0.to_string(),
                "durationMs": summary.duration_nanos() / 1_000_000,
                "spanSets": [{ "matched": matched.len(), "spans": spans }],
                "serviceStats": stats,
            })
        })
        .collect();
    let fault = *store.fault.lock();
    if traces.len() > 1 {
        match fault {
            Fault::SwapsResults => traces.swap(0, 1),
            Fault::RepeatsResult => traces[1] = traces[0].clone(),
            Fault::DropsResult => drop(traces.remove(0)),
            _ => {}
        }
    }
    let status = if fault == Fault::Partial { "PARTIAL" } else { "COMPLETE" };
    json!({ "traces": traces, "status": status }).to_string()
}

/// Calls `visit` with scope, key and value of every attribute.
fn each_attribute(record: &SpanRecord, visit: &mut dyn FnMut(&'static str, KeyValueView<'_>)) {
    let span = SpanView::parse(&record.bytes).unwrap();
    span.attributes().for_each(|pair| visit("span", pair.unwrap()));
    let resource = resource_attributes(&record.resource.bytes);
    resource.for_each(|pair| visit("resource", pair.unwrap()));
    for event in span.events() {
        event.unwrap().attributes().for_each(|pair| visit("event", pair.unwrap()));
    }
    for link in span.links() {
        link.unwrap().attributes().for_each(|pair| visit("link", pair.unwrap()));
    }
}

async fn tag_names(State(store): State<Arc<Store>>, headers: HeaderMap) -> String {
    let mut scopes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for record in store.traces(&tenant(&headers)).iter().flat_map(|trace| &trace.spans) {
        each_attribute(record, &mut |scope, pair| {
            scopes.entry(scope).or_default().insert(pair.key.to_owned());
        });
    }
    if store.has(Fault::ForgetsTag) {
        scopes.get_mut("span").unwrap().pop_first();
    }
    let scopes: Vec<_> =
        scopes.into_iter().map(|(name, tags)| json!({ "name": name, "tags": tags })).collect();
    json!({ "scopes": scopes }).to_string()
}

async fn tag_values(
    State(store): State<Arc<Store>>,
    Path(tag): Path<String>,
    headers: HeaderMap,
) -> String {
    let (wanted, key) = tag.split_once('.').unwrap();
    let mut values = BTreeSet::new();
    for record in store.traces(&tenant(&headers)).iter().flat_map(|trace| &trace.spans) {
        each_attribute(record, &mut |scope, pair| {
            if scope == wanted && pair.key == key {
                values.insert(match pair.value {
                    AnyValueView::String(text) => ("string", text.to_owned()),
                    AnyValueView::Int(number) => ("int", number.to_string()),
                    AnyValueView::Bool(truth) => ("bool", truth.to_string()),
                    other => panic!("{other:?}"),
                });
            }
        });
    }
    if store.has(Fault::ForgetsTag) {
        values.pop_first();
    }
    let values: Vec<_> =
        values.iter().map(|(kind, value)| json!({ "type": kind, "value": value })).collect();
    json!({ "tagValues": values }).to_string()
}
