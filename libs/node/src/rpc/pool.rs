//! Connections to the other processes of a cluster: one for each address, shared by everyone who
//! talks to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Channel, Dialer};
use crate::Problem;

/// Addresses with a connection; past it all are forgotten and made again when next needed.
const ADDRESSES_MAX: usize = 8_192;

/// How a connection to a `host:port` is made.
pub type Connect = Arc<dyn Fn(&str) -> Result<Channel, Problem> + Send + Sync>;

/// The connections of a process, by `host:port`. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    channels: Arc<RwLock<Channels>>,
    connect: Connect,
}

#[derive(Debug, Default)]
struct Channels {
    here: BTreeMap<String, Channel>,
    elsewhere: BTreeMap<String, Channel>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.channels.read().fmt(f)
    }
}

impl Pool {
    /// A pool without connections, which are made by `dialer`.
    pub fn new(dialer: Dialer) -> Pool {
        Pool::over(Arc::new(move |addr| dialer.connect(addr)))
    }

    /// A pool without connections, that makes them with `connect`.
    pub fn over(connect: Connect) -> Pool {
        Pool { channels: Arc::default(), connect }
    }

    /// Keeps calls to this process's own address inside it.
    pub fn set_here(&self, addr: &str, channel: Channel) {
        self.channels.write().here.insert(addr.to_owned(), channel);
    }

    /// The connection to `addr`, made on first use.
    ///
    /// # Errors
    /// [`clew_model::ErrorKind::Invalid`] when it is no address.
    pub fn get(&self, addr: &str) -> Result<Channel, Problem> {
        {
            let channels = self.channels.read();
            let known = channels.here.get(addr).or_else(|| channels.elsewhere.get(addr));
            if let Some(channel) = known {
                return Ok(channel.clone());
            }
        }
        let channel = (self.connect)(addr)?;
        let mut channels = self.channels.write();
        if channels.elsewhere.len() >= ADDRESSES_MAX {
            channels.elsewhere.clear();
        }
        Ok(channels.elsewhere.entry(addr.to_owned()).or_insert(channel).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_one_connection_and_nonsense_none() {
        let pool = Pool::new(Dialer::plain(&crate::Clock::system()));
        assert!(pool.get("no address").is_err());
        for port in 0..ADDRESSES_MAX + 2 {
            pool.get(&format!("10.0.0.1:{port}")).unwrap();
            pool.get("10.0.0.1:0").unwrap();
        }
        assert!(pool.channels.read().elsewhere.len() <= ADDRESSES_MAX);
    }
}
