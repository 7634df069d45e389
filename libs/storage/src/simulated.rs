//! A store that many simulated processes share, with weather: requests take their time and overtake
//! each other, fail before or after they took effect, hang, or are cut off in transfer. What it
//! acknowledged it never loses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_model::UnixNanos;
use clew_node::{Clock, Deps, Rng};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::{Backend, Creation, Listed, Read, Span};
use crate::bucket::Bucket;
use crate::error::{Error, Operation};

/// What goes wrong, in thousandths of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// The shortest time of a request.
    pub delay_min: Duration,
    /// The longest.
    pub delay_max: Duration,
    /// Fails and has no effect.
    pub fails_before: u64,
    /// Takes effect and fails all the same.
    pub fails_after: u64,
    /// Is not answered within [`Weather::stall`].
    pub stalls: u64,
    /// How long that is.
    pub stall: Duration,
    /// Reads that end before they should.
    pub truncates: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FINE: Weather = Weather {
        delay_min: Duration::from_millis(2),
        delay_max: Duration::from_millis(30),
        fails_before: 0,
        fails_after: 0,
        stalls: 0,
        stall: Duration::from_secs(20),
        truncates: 0,
    };
}

/// The objects of all simulated processes. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct SimulatedStore(Arc<Mutex<Content>>);

struct Content {
    objects: BTreeMap<String, (Bytes, UnixNanos)>,
    /// Keys of objects that were there once.
    deleted: BTreeSet<String>,
    /// Reads of those.
    missed: Vec<(String, String)>,
    /// Who has stored an object last.
    created: watch::Sender<String>,
    weather: Weather,
}

impl Default for SimulatedStore {
    fn default() -> SimulatedStore {
        SimulatedStore(Arc::new(Mutex::new(Content {
            objects: BTreeMap::new(),
            deleted: BTreeSet::new(),
            missed: Vec::new(),
            created: watch::Sender::default(),
            weather: Weather::FINE,
        })))
    }
}

impl SimulatedStore {
    /// Changes what goes wrong from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    /// The keys of all objects and their sizes.
    pub fn sizes(&self) -> BTreeMap<String, u64> {
        let content = self.0.lock();
        content.objects.iter().map(|(key, (body, _))| (key.clone(), body.len() as u64)).collect()
    }

    /// The size of an object, if it is there.
    pub fn size_of(&self, key: &str) -> Option<u64> {
        self.0.lock().objects.get(key).map(|(body, _)| body.len() as u64)
    }

    /// Tells of every object that is stored by whom, at the moment that it is there: its creator may
    /// not know yet.
    pub fn created(&self) -> watch::Receiver<String> {
        self.0.lock().created.subscribe()
    }

    /// Who read what had been deleted, since this was asked last: name and key.
    pub fn take_missed(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().missed)
    }
}

impl std::fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimulatedStore")
    }
}

impl Bucket {
    /// The way of the process `name` to a shared store, with the process's clock and chance.
    pub fn simulated(store: &SimulatedStore, name: &str, deps: &Deps) -> Bucket {
        let (store, name) = (store.clone(), name.to_owned());
        let (clock, rng) = (deps.clock.clone(), deps.rng.clone());
        Bucket::over(Arc::new(Link { store, name, clock, rng }), deps)
    }
}

/// One process's connection to the store.
#[derive(Clone)]
struct Link {
    store: SimulatedStore,
    name: String,
    clock: Clock,
    rng: Rng,
}

impl Link {
    /// Does `work` at some moment of a request, unless the weather is against it.
    async fn request<T>(
        &self,
        operation: Operation,
        key: &str,
        work: impl FnOnce(&mut Content) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let weather = self.store.0.lock().weather;
        let failure = || Err(Error::unavailable(operation, key, "503 slow down"));
        self.clock.sleep(self.between(weather.delay_min, weather.delay_max) / 2).await;
        let lot = self.rng.below(1_000);
        if lot < weather.fails_before {
            return failure();
        }
        let done = work(&mut self.store.0.lock());
        if (weather.fails_before..weather.fails_before + weather.fails_after).contains(&lot) {
            return failure();
        }
        if self.rng.below(1_000) < weather.stalls {
            self.clock.sleep(weather.stall).await;
        }
        self.clock.sleep(self.between(weather.delay_min, weather.delay_max) / 2).await;
        done
    }

    fn between(&self, min: Duration, max: Duration) -> Duration {
        let more = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX);
        min + Duration::from_nanos(self.rng.below(more.saturating_add(1)))
    }
}

fn missing(key: &str) -> Error {
    Error::NotFound { key: key.to_owned() }
}

#[async_trait]
impl Backend for Link {
    async fn create(&self, key: &str, body: Bytes) -> Result<Creation, Error> {
        let now = self.clock.now_unix();
        self.request(Operation::Put, key, move |content| {
            if content.objects.contains_key(key) {
                return Ok(Creation::Existed);
            }
            content.objects.insert(key.to_owned(), (body, now));
            content.created.send_replace(self.name.clone());
            Ok(Creation::Created)
        })
        .await
    }

    async fn read(&self, key: &str, span: Span) -> Result<Read, Error> {
        let truncates = self.rng.below(1_000) < self.store.0.lock().weather.truncates;
        let read = self.request(Operation::Get, key, |content| {
            let Some((body, _)) = content.objects.get(key) else {
                if content.deleted.contains(key) {
                    content.missed.push((self.name.clone(), key.to_owned()));
                }
                return Err(missing(key));
            };
            let size = body.len() as u64;
            let (start, end) = match span {
                Span::Range(range) => (range.start.min(size), range.end.min(size)),
                Span::Tail(length) => (size.saturating_sub(length), size),
            };
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let bytes = body.slice(place(start)..place(end.max(start)));
            Ok(Read { bytes, size })
        });
        let Read { bytes, size } = read.await?;
        let bytes = if truncates { bytes.slice(..bytes.len() / 2) } else { bytes };
        Ok(Read { bytes, size })
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        self.request(Operation::Head, key, |content| {
            let (body, _) = content.objects.get(key).ok_or_else(|| missing(key))?;
            Ok(body.len() as u64)
        })
        .await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let (link, prefix) = (self.clone(), prefix.to_owned());
        let listed = async move {
            let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            let found = link.request(Operation::List, &prefix, |content| {
                let there = content.objects.iter().filter(|(key, _)| key.starts_with(&below));
                let listed = |(key, (body, modified)): (&String, &(Bytes, UnixNanos))| Listed {
                    key: key.clone(),
                    size: body.len() as u64,
                    modified: *modified,
                };
                Ok(there.map(listed).collect::<Vec<_>>())
            });
            match found.await {
                Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        listed.flatten_stream().boxed()
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.request(Operation::Delete, key, |content| {
            if content.objects.remove(key).is_some() {
                content.deleted.insert(key.to_owned());
            }
            Ok(())
        })
        .await
    }
}
