//! Connecting to other nodes, in plain text or encrypted, and saying why it did not work.

use std::sync::Arc;
use std::time::Duration;

use clew_model::ErrorKind;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt};

use super::link::{Link, Target};
use super::{BoxError, Channel};
use crate::tls::{Complaints, Credentials};
use crate::{Clock, Problem};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How this process connects to other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    credentials: Option<Credentials>,
    complaints: Arc<Complaints>,
}

impl Dialer {
    /// Connects with these certificates, or in plain text where there are none.
    pub fn new(clock: &Clock, credentials: Option<Credentials>) -> Dialer {
        Dialer { credentials, complaints: Arc::new(Complaints::new(clock)) }
    }

    /// Connects in plain text.
    pub fn plain(clock: &Clock) -> Dialer {
        Dialer::new(clock, None)
    }

    /// A channel to `host:port`, connected on first use and again after failures.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is no address.
    pub fn connect(&self, addr: &str) -> Result<Channel, Problem> {
        // Where the connection is encrypted, that is done below HTTP, which knows nothing of it.
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|error| {
            let message = format!("no address of a node: {addr}: {error}");
            Problem::new(ErrorKind::Invalid, "bad_address", message)
        })?;
        let target = Arc::new(Target::new(addr, self.complaints.clone()));
        let mut sockets = HttpConnector::new();
        sockets.set_nodelay(true);
        sockets.set_connect_timeout(Some(CONNECT_MAX));
        let (credentials, known) = (self.credentials.clone(), target.clone());
        let connector = tower::service_fn(move |uri: Uri| {
            let mut sockets = sockets.clone();
            let (credentials, target) = (credentials.clone(), known.clone());
            async move {
                let socket = sockets.ready().await?.call(uri).await?.into_inner();
                let link = Link::make(socket, credentials.as_ref(), target).await?;
                Ok::<_, BoxError>(TokioIo::new(link))
            }
        });
        let channel = endpoint
            .connect_timeout(CONNECT_MAX)
            // A link that was cut is noticed in time for an election, and its connection made anew.
            .http2_keep_alive_interval(Duration::from_secs(3))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        let channel = channel.map_err(move |error| match target.refusal() {
            // gRPC's own error does not tell what is below it.
            Some(refusal) => BoxError::from(Status::unavailable(refusal)),
            None => BoxError::from(error),
        });
        Ok(Channel(BoxCloneSyncService::new(channel)))
    }
}
