//! Object stores that misbehave on request, for tests of whatever depends on one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_node::Clock;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;

use crate::backend::{Backend, Creation, Listed, Read, Span};
use crate::bucket::Bucket;
use crate::error::{Error, Operation};

/// What goes wrong in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    FailBefore,
    /// It takes effect and fails all the same: the caller cannot know.
    FailAfter,
    /// The store denies access.
    Deny,
    /// A read returns only this many bytes; on other operations nothing is wrong.
    Truncate(usize),
    /// A read returns bytes of which the first is changed; on other operations nothing is wrong.
    Garble,
    /// It is answered only after this time, by the injected clock.
    Stall(Duration),
    /// A write is answered well and keeps nothing; on other operations nothing is wrong.
    Forget,
}

/// Faults to come, by operation. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    faults: Arc<Mutex<BTreeMap<Operation, VecDeque<Fault>>>>,
}

impl FaultPlan {
    /// No faults yet.
    pub fn new() -> FaultPlan {
        FaultPlan::default()
    }

    /// Lets the next attempt of `operation` that has no fault yet go wrong.
    pub fn inject(&self, operation: Operation, fault: Fault) {
        self.faults.lock().entry(operation).or_default().push_back(fault);
    }

    /// How many faults have not happened yet.
    pub fn pending(&self) -> usize {
        self.faults.lock().values().map(VecDeque::len).sum()
    }

    fn is_forgotten(&self) -> bool {
        let mut faults = self.faults.lock();
        let Some(next) = faults.get_mut(&Operation::Put) else { return false };
        if next.front() != Some(&Fault::Forget) {
            return false;
        }
        next.pop_front();
        true
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        self.faults.lock().get_mut(&operation)?.pop_front()
    }
}

impl Bucket {
    /// The same bucket with the faults of `plan`, which happen below the retries. `clock` is what
    /// stalls wait by.
    #[must_use]
    pub fn with_faults(self, plan: &FaultPlan, clock: &Clock) -> Bucket {
        let (plan, clock) = (plan.clone(), clock.clone());
        self.map_backend(|backend| Arc::new(Faulty { backend, plan, clock }))
    }
}

struct Faulty {
    backend: Arc<dyn Backend>,
    plan: FaultPlan,
    clock: Clock,
}

impl Faulty {
    /// Runs `action` with the next fault of `operation`, and tells which one it was.
    async fn run<T>(
        &self,
        operation: Operation,
        key: &str,
        action: impl Future<Output = Result<T, Error>>,
    ) -> (Option<Fault>, Result<T, Error>) {
        let fault = self.plan.next(operation);
        let failure = || Err(Error::unavailable(operation, key, "an injected fault"));
        let result = match fault {
            Some(Fault::FailBefore) => failure(),
            Some(Fault::FailAfter) => match action.await {
                Ok(_) => failure(),
                Err(error) => Err(error),
            },
            Some(Fault::Deny) => {
                let (key, message) = (key.to_owned(), "an injected fault".to_owned());
                Err(Error::Denied { operation, key, message })
            }
            Some(Fault::Stall(duration)) => {
                self.clock.sleep(duration).await;
                action.await
            }
            Some(Fault::Truncate(_) | Fault::Garble | Fault::Forget) | None => action.await,
        };
        (fault, result)
    }
}

#[async_trait]
impl Backend for Faulty {
    async fn create(&self, key: &str, body: Bytes) -> Result<Creation, Error> {
        if self.plan.is_forgotten() {
            return Ok(Creation::Created);
        }
        self.run(Operation::Put, key, self.backend.create(key, body)).await.1
    }

    async fn read(&self, key: &str, span: Span) -> Result<Read, Error> {
        let (fault, read) = self.run(Operation::Get, key, self.backend.read(key, span)).await;
        let Read { bytes, size } = read?;
        let bytes = match fault {
            Some(Fault::Truncate(length)) => bytes.slice(..length.min(bytes.len())),
            Some(Fault::Garble) => {
                let garbled = bytes.iter().enumerate();
                garbled.map(|(at, byte)| if at == 0 { byte ^ 0xff } else { *byte }).collect()
            }
            _ => bytes,
        };
        Ok(Read { bytes, size })
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        self.run(Operation::Head, key, self.backend.size(key)).await.1
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let listed = self.backend.list(prefix);
        let (plan, clock, prefix) = (self.plan.clone(), self.clock.clone(), prefix.to_owned());
        let begin = async move {
            let failure = || Err(Error::unavailable(Operation::List, &prefix, "an injected fault"));
            match plan.next(Operation::List) {
                Some(Fault::FailBefore | Fault::Deny) => stream::iter([failure()]).boxed(),
                Some(Fault::FailAfter) => listed.chain(stream::iter([failure()])).boxed(),
                Some(Fault::Stall(duration)) => {
                    clock.sleep(duration).await;
                    listed
                }
                Some(Fault::Truncate(_) | Fault::Garble | Fault::Forget) | None => listed,
            }
        };
        begin.flatten_stream().boxed()
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.run(Operation::Delete, key, self.backend.delete(key)).await.1
    }
}
