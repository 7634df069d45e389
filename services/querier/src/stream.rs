//! The streaming form of the Tempo API, `tempopb.StreamingQuerier`: the same answers as over HTTP,
//! with what is found while the query still runs.
//!
//! At most every half second comes a message with what is new; the last messages are the complete
//! answer, cut into packets. A query that is wrong fails at the first message.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clew_model::TenantId;
use clew_proto::tempopb::streaming_querier_server::{StreamingQuerier, StreamingQuerierServer};
use clew_proto::tempopb::{
    QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse,
    SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse, SearchTagsV2Response,
    TraceSearchMetadata,
};
use clew_query::{QueryError, refuse_metrics_query};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::StatusCode;
use prost::Message;
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};

use crate::answers;
use crate::http::{
    Api, Fault, admitted, from_metrics, from_search, from_tag_names, from_tag_values, tenants_of,
};
use crate::root::{Answer, Progress};

/// Between two messages of a query that runs.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The largest message, in bytes, unless one trace or value alone is larger.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Messages that wait for a slow client.
const WAITING_MAX: usize = 4;

/// The largest request; a query has at most 128 KiB.
const REQUEST_BYTES_MAX: usize = 1 << 20;

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The streaming form of the query API.
#[derive(Clone)]
pub struct Streaming(Arc<Api>);

impl Streaming {
    pub(crate) fn new(api: Arc<Api>) -> Streaming {
        Streaming(api)
    }

    /// The service for a listener.
    pub(crate) fn server(self) -> StreamingQuerierServer<Streaming> {
        StreamingQuerierServer::new(self)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn tenants<T>(&self, request: &Request<T>) -> Result<Vec<TenantId>, Status> {
        tenants_of(request.metadata().as_ref(), &self.0.config).map_err(status_of)
    }

    /// Why a query that is to yield series is not answered.
    fn refuse_series(&self, query: &str) -> Status {
        let query = match from_metrics(query, &self.0.config.query) {
            Ok(query) => query,
            Err(fault) => return status_of(fault),
        };
        match refuse_metrics_query(&query) {
            error @ QueryError::NotSupported { .. } => Status::unimplemented(error.to_string()),
            error => Status::invalid_argument(error.to_string()),
        }
    }

    /// Runs a request whose whole answer comes at its end.
    fn at_once<T: Message + Send + 'static>(
        &self,
        route: &'static str,
        answer: impl Future<Output = Result<Answer<T>, Fault>> + Send + 'static,
        packets: fn(T) -> Vec<T>,
    ) -> Response<Answers<T>> {
        let (api, (sender, receiver)) = (Arc::clone(&self.0), mpsc::channel(WAITING_MAX));
        self.0.deps.tasks.spawn(async move {
            let counted = admitted(&api, route, answer, |_| 200);
            // A client that went away needs no answer.
            let answered = tokio::select! {
                answered = counted => answered,
                () = sender.closed() => return,
            };
            match answered {
                Ok(Answer { value, missing }) => {
                    api.count_missing(&missing);
                    for packet in packets(value) {
                        let _ = sender.send(Ok(packet)).await;
                    }
                }
                Err(fault) => {
                    let _ = sender.send(Err(status_of(fault))).await;
                }
            }
        });
        Response::new(received(receiver))
    }
}

#[tonic::async_trait]
impl StreamingQuerier for Streaming {
    type SearchStream = Answers<SearchResponse>;
    type SearchTagsStream = Answers<SearchTagsResponse>;
    type SearchTagsV2Stream = Answers<SearchTagsV2Response>;
    type SearchTagValuesStream = Answers<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Answers<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Answers<QueryRangeResponse>;
    type MetricsQueryInstantStream = Answers<QueryInstantResponse>;

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        let tenants = self.tenants(&request)?;
        let now = self.0.deps.clock.now_unix();
        let ask = from_search(&request.into_inner(), &self.0.config.query, now);
        let ask = ask.map_err(status_of)?;
        let (api, (sender, receiver)) = (Arc::clone(&self.0), mpsc::channel(WAITING_MAX));
        self.0.deps.tasks.spawn(async move {
            let progress = Progress::heard();
            let query = answers::search(&api, &tenants, &ask, &progress);
            let mut query = pin!(admitted(&api, "stream_search", query, |_| 200));
            let mut sent = Sent::default();
            let answered = loop {
                tokio::select! {
                    answered = &mut query => break answered,
                    () = sender.closed() => return,
                    () = api.deps.clock.sleep(PROGRESS_EVERY) => {
                        let _ = sender.try_send(Ok(sent.news(&progress)));
                    }
                }
            };
            match answered {
                Ok(Answer { value, missing }) => {
                    api.count_missing(&missing);
                    for packet in search_packets(value.0) {
                        let _ = sender.send(Ok(packet)).await;
                    }
                }
                Err(fault) => {
                    let _ = sender.send(Err(status_of(fault))).await;
                }
            }
        });
        Ok(Response::new(received(receiver)))
    }

    async fn search_tags(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Result<Response<Self::SearchTagsStream>, Status> {
        let tenants = self.tenants(&request)?;
        let ask = from_tag_names(request.get_ref(), &self.0.config.query).map_err(status_of)?;
        let api = Arc::clone(&self.0);
        let answer = async move { answers::tag_names_v1(&api, &tenants, &ask).await };
        Ok(self.at_once("stream_tag_names_v1", answer, |whole| {
            let SearchTagsResponse { tag_names, metrics } = whole;
            let packet = |tag_names| SearchTagsResponse { tag_names, metrics: metrics.clone() };
            chunks(tag_names, String::len).into_iter().map(packet).collect()
        }))
    }

    async fn search_tags_v2(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Result<Response<Self::SearchTagsV2Stream>, Status> {
        let tenants = self.tenants(&request)?;
        let ask = from_tag_names(request.get_ref(), &self.0.config.query).map_err(status_of)?;
        let api = Arc::clone(&self.0);
        let answer = async move { answers::tag_names_v2(&api, &tenants, &ask).await };
        // Bounded by the bytes of tags, so it is one packet.
        Ok(self.at_once("stream_tag_names_v2", answer, |whole| vec![whole]))
    }

    async fn search_tag_values(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesStream>, Status> {
        let tenants = self.tenants(&request)?;
        let ask = from_tag_values(request.get_ref(), &self.0.config.query).map_err(status_of)?;
        let api = Arc::clone(&self.0);
        let answer = async move { answers::tag_values_v1(&api, &tenants, &ask).await };
        Ok(self.at_once("stream_tag_values_v1", answer, |whole| {
            let SearchTagValuesResponse { tag_values, metrics } = whole;
            let packet =
                |tag_values| SearchTagValuesResponse { tag_values, metrics: metrics.clone() };
            chunks(tag_values, String::len).into_iter().map(packet).collect()
        }))
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesV2Stream>, Status> {
        let tenants = self.tenants(&request)?;
        let ask = from_tag_values(request.get_ref(), &self.0.config.query).map_err(status_of)?;
        let api = Arc::clone(&self.0);
        let answer = async move { answers::tag_values_v2(&api, &tenants, &ask).await };
        Ok(self.at_once("stream_tag_values_v2", answer, |whole| {
            let SearchTagValuesV2Response { tag_values, metrics } = whole;
            let packet =
                |tag_values| SearchTagValuesV2Response { tag_values, metrics: metrics.clone() };
            chunks(tag_values, Message::encoded_len).into_iter().map(packet).collect()
        }))
    }

    async fn metrics_query_range(
        &self,
        request: Request<QueryRangeRequest>,
    ) -> Result<Response<Self::MetricsQueryRangeStream>, Status> {
        self.tenants(&request)?;
        Err(self.refuse_series(&request.get_ref().query))
    }

    async fn metrics_query_instant(
        &self,
        request: Request<QueryInstantRequest>,
    ) -> Result<Response<Self::MetricsQueryInstantStream>, Status> {
        self.tenants(&request)?;
        Err(self.refuse_series(&request.get_ref().query))
    }
}

/// What of a search was sent already, by trace.
#[derive(Default)]
struct Sent(HashMap<String, TraceSearchMetadata>);

impl Sent {
    /// Traces that are new or changed since, as far as one packet holds them, and how far the
    /// search is.
    fn news(&mut self, progress: &Progress) -> SearchResponse {
        let found = progress.take();
        let mut traces = Vec::new();
        let mut bytes = 0;
        for mut trace in found.traces {
            answers::show_first_spanset(&mut trace);
            bytes += trace.encoded_len();
            if self.0.get(&trace.trace_id) == Some(&trace) {
                continue;
            }
            if bytes > PACKET_BYTES_MAX {
                break;
            }
            self.0.insert(trace.trace_id.clone(), trace.clone());
            traces.push(trace);
        }
        let metrics = SearchMetrics {
            completed_jobs: found.done,
            total_jobs: found.steps,
            ..SearchMetrics::default()
        };
        SearchResponse { traces, metrics: Some(metrics), ..SearchResponse::default() }
    }
}

/// The complete answer; each packet says that all is done.
fn search_packets(whole: SearchResponse) -> Vec<SearchResponse> {
    let SearchResponse { traces, metrics, status, message } = whole;
    let packet = |traces| SearchResponse {
        traces,
        metrics: metrics.clone(),
        status,
        message: message.clone(),
    };
    chunks(traces, Message::encoded_len).into_iter().map(packet).collect()
}

/// Lists that fit into a packet each; one empty list for none.
fn chunks<T>(all: Vec<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    // A tag and a length of at most so many bytes stand before each.
    const FRAMING: usize = 8;
    let mut chunks = vec![Vec::new()];
    let mut bytes = 0;
    for each in all {
        let more = bytes_of(&each) + FRAMING;
        let full = bytes + more > PACKET_BYTES_MAX - 4096;
        match chunks.last_mut() {
            Some(chunk) if chunk.is_empty() || !full => chunk.push(each),
            _ => {
                bytes = 0;
                chunks.push(vec![each]);
            }
        }
        bytes += more;
    }
    chunks
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, Status>>) -> Answers<T> {
    stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        Some((message, receiver))
    })
    .boxed()
}

/// The map that the Tempo API has between HTTP and gRPC.
fn status_of(fault: Fault) -> Status {
    let code = match fault.status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_server_error() => Code::Internal,
        _ => Code::Unknown,
    };
    Status::new(code, fault.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_into_packets_and_none_is_lost() {
        let trace = |at: usize| TraceSearchMetadata {
            trace_id: format!("{at:x}"),
            root_trace_name: "x".repeat(100_000),
            ..TraceSearchMetadata::default()
        };
        let traces: Vec<_> = (1..=35).map(trace).collect();
        let whole = SearchResponse { traces: traces.clone(), ..SearchResponse::default() };
        let packets = search_packets(whole);
        assert_eq!(packets.len(), 4);
        assert!(packets.iter().all(|packet| packet.encoded_len() <= PACKET_BYTES_MAX));
        let joined: Vec<_> = packets.into_iter().flat_map(|packet| packet.traces).collect();
        assert_eq!(joined, traces);
        assert_eq!(search_packets(SearchResponse::default()).len(), 1);
        assert_eq!(chunks(vec![5 << 20, 1, 1], |bytes| *bytes), [vec![5 << 20], vec![1, 1]]);
    }

    #[test]
    fn progress_names_what_is_new_or_changed() {
        use clew_proto::query::v1 as query;

        let found = |names: &[(&str, u32)]| {
            let found = |(id, duration_ms): &(&str, u32)| query::FoundTrace {
                metadata: Some(TraceSearchMetadata {
                    trace_id: (*id).to_owned(),
                    duration_ms: *duration_ms,
                    ..TraceSearchMetadata::default()
                }),
                ..query::FoundTrace::default()
            };
            query::SearchResponse {
                traces: names.iter().map(found).collect(),
                ..query::SearchResponse::default()
            }
        };
        let (progress, mut sent) = (Progress::heard(), Sent::default());
        let mut news = || {
            let news = sent.news(&progress);
            let metrics = news.metrics.unwrap();
            let names = news.traces.into_iter().map(|trace| trace.trace_id).collect::<Vec<_>>();
            (names.join(" "), metrics.completed_jobs, metrics.total_jobs)
        };
        progress.expect(2);
        assert_eq!(news(), (String::new(), 0, 2));
        progress.report(2, &found(&[("a", 1), ("b", 1)]));
        assert_eq!(news(), ("a b".to_owned(), 2, 2));
        assert_eq!(news(), (String::new(), 2, 2));
        progress.expect(1);
        progress.report(1, &found(&[("a", 1), ("b", 2), ("c", 1)]));
        assert_eq!(news(), ("b c".to_owned(), 3, 3));
    }

    #[test]
    fn faults_have_the_code_that_tempo_gives_them() {
        for (status, code) in [
            (StatusCode::BAD_REQUEST, Code::InvalidArgument),
            (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            (StatusCode::NOT_FOUND, Code::NotFound),
            (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        ] {
            assert_eq!(status_of(Fault::new(status, "x")).code(), code);
        }
    }
}
