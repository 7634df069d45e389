//! OTLP over gRPC. Requests are encoded already, so the codec hands bytes through.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::codec::{
    BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder,
};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::otlp::Compression;
use super::outcome::Sent;
use crate::error::Error;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// One connection.
#[derive(Clone)]
pub(super) struct Grpc(tonic::client::Grpc<Channel>);

impl Grpc {
    /// A connection to `address`, opened on first use and again after failures.
    pub(super) fn new(address: &str, compression: Compression) -> Result<Grpc, Error> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| {
            Error::Address { address: address.to_owned(), reason: error.to_string() }
        })?;
        let channel = endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_lazy();
        let client = tonic::client::Grpc::new(channel);
        Ok(Grpc(match compression {
            Compression::None => client,
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
        }))
    }

    /// Sends one encoded request.
    pub(super) async fn send(
        &self,
        headers: impl Iterator<Item = (String, String)>,
        body: Bytes,
    ) -> Sent {
        let mut request = Request::new(body);
        for (name, value) in headers {
            let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let (Ok(name), Ok(value)) = (name, MetadataValue::try_from(value)) else {
                return Sent::Refused { reason: "a header has characters that cannot be".into() };
            };
            request.metadata_mut().insert(name, value);
        }
        let mut client = self.0.clone();
        if let Err(error) = client.ready().await {
            return Sent::Unanswered { reason: format!("not connected: {error}") };
        }
        match client.unary(request, PathAndQuery::from_static(EXPORT), Raw).await {
            Ok(response) => Sent::from_response(response.get_ref()),
            Err(status) => Sent::from_status(&status),
        }
    }
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(256 << 10, 4 << 20)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
