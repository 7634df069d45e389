//! How the members of a metastore find together: a new group begins exactly once, and a member whose
//! disk is empty joins the group there is.
//!
//! A new group begins when every member of the list is there, none of them belongs to a group, and
//! the first of the list (by name) writes the first membership. So a member that comes back with an
//! empty disk can never begin a second group beside the first: the others belong to one already. Its
//! id was chosen with its disk, so it does not pass for the replica it was before, whose promises it
//! has forgotten; the leader lets it catch up, gives it a vote, and takes away that of the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use clew_model::ErrorKind;
use clew_node::Problem;
use clew_proto::metastore::v1::member_service_client::MemberServiceClient;
use clew_proto::metastore::v1::{HelloRequest, HelloResponse, JoinRequest};
use clew_raft::{NodeAddr, ReplicaId};
use futures::future::join_all;

use crate::MetastoreError;
use crate::error::OTHER_RELEASE;
use crate::levels::{said, stated};
use crate::service::Metastore;

/// Between two looks at the others.
const LOOK_DELAY: Duration = Duration::from_millis(300);

/// How long another member may take to say that it is there.
const HELLO_MAX: Duration = Duration::from_secs(2);

/// How long a member may take to catch up and be given its vote, in one attempt.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// Looks without success before it is said what is waited for; then every so many again.
const QUIET_LOOKS: usize = 20;

impl Metastore {
    /// Completes once this member has a vote in its group, whose cluster exists.
    ///
    /// # Errors
    /// [`MetastoreError`] when the replica fails.
    pub async fn form(&self) -> Result<(), MetastoreError> {
        let inner = &self.0;
        self.check_not_passed_over().await?;
        let mut looks = 0usize;
        // One that is alone began when it was opened.
        while inner.members.len() > 1
            && !inner.group.members().voters.contains_key(&inner.group.replica())
        {
            let waits_for = self.look().await?;
            looks += 1;
            if looks.is_multiple_of(QUIET_LOOKS) {
                tracing::warn!(waits_for, "the metastore has not come together yet");
            }
            inner.deps.clock.sleep(LOOK_DELAY).await;
        }
        loop {
            match self.create_cluster().await {
                Ok(()) => return self.0.check_level(),
                Err(error) if error.is_final() => return Err(error),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(%error, "the metastore has no majority yet");
                    inner.deps.clock.sleep(LOOK_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Fails if others have begun again from a backup or from one member's disk: the group that this
    /// member remembers must not come to life beside theirs.
    async fn check_not_passed_over(&self) -> Result<(), MetastoreError> {
        let inner = &self.0;
        if inner.group.members().voters.is_empty() {
            return Ok(());
        }
        let own = inner.group.with_state(|machine| machine.state.incarnation()).max(1);
        let others: Vec<&String> = inner.members.iter().filter(|m| **m != inner.addr).collect();
        let hellos = join_all(others.iter().map(|addr| self.hello(addr))).await;
        let is_later = |hello: &Result<HelloResponse, Problem>| {
            hello.as_ref().is_ok_and(|hello| hello.belongs && hello.incarnation > own)
        };
        match others.iter().zip(hellos).find(|(_, hello)| is_later(hello)) {
            Some((there, _)) => Err(MetastoreError::PassedOver { there: (*there).clone() }),
            None => Ok(()),
        }
    }

    /// The other members that say that they belong to a group.
    pub(crate) async fn others_that_belong(&self) -> Vec<String> {
        let inner = &self.0;
        let others: Vec<&String> = inner.members.iter().filter(|m| **m != inner.addr).collect();
        let hellos = join_all(others.iter().map(|addr| self.hello(addr))).await;
        let belong = others.into_iter().zip(hellos);
        let belong = belong.filter(|(_, hello)| hello.as_ref().is_ok_and(|hello| hello.belongs));
        belong.map(|(addr, _)| addr.clone()).collect()
    }

    /// One attempt; gives what is still missing.
    async fn look(&self) -> Result<String, MetastoreError> {
        let inner = &self.0;
        let others: Vec<&String> = inner.members.iter().filter(|m| **m != inner.addr).collect();
        let hellos = join_all(others.iter().map(|addr| self.hello(addr))).await;
        let mut there = BTreeMap::from([(inner.group.replica(), NodeAddr(inner.addr.clone()))]);
        let mut absent = Vec::new();
        for (addr, hello) in others.iter().zip(hellos) {
            match hello {
                Ok(hello) if hello.belongs => {
                    let joined = self.ask_to_join(addr).await;
                    return Ok(match joined {
                        Ok(()) => "its vote".to_owned(),
                        // Waiting would not change it.
                        Err(problem) if problem.reason == OTHER_RELEASE => {
                            return Err(MetastoreError::Leader(problem));
                        }
                        Err(problem) => format!("{addr} to let it in: {problem}"),
                    });
                }
                Ok(hello) => {
                    there.insert(ReplicaId(hello.replica), NodeAddr((*addr).clone()));
                }
                Err(problem) => absent.push(format!("{addr} ({problem})")),
            }
        }
        if !absent.is_empty() {
            return Ok(absent.join(", "));
        }
        let is_first = inner.members.iter().min() == Some(&inner.addr);
        if !is_first {
            return Ok("the first member to begin".to_owned());
        }
        tracing::info!(members = inner.members.join(","), "the metastore begins");
        match inner.group.begin(there).await {
            // It was begun by an attempt before this one.
            Ok(()) | Err(clew_raft::Error::Members(_)) => Ok("an election".to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn hello(&self, addr: &str) -> Result<HelloResponse, Problem> {
        let mut client = MemberServiceClient::new(self.0.pool.get(addr)?);
        let hello = client.hello(HelloRequest {});
        match self.0.deps.clock.timeout(HELLO_MAX, hello).await {
            Some(answer) => Ok(answer?.into_inner()),
            None => Err(silent()),
        }
    }

    async fn ask_to_join(&self, addr: &str) -> Result<(), Problem> {
        let mut client = MemberServiceClient::new(self.0.pool.get(addr)?);
        let (replica, addr) = (self.0.group.replica().0, self.0.addr.clone());
        let join = JoinRequest { replica, addr, features: Some(said(self.0.features)) };
        match self.0.deps.clock.timeout(JOIN_MAX, client.join(join)).await {
            Some(answer) => answer.map(|_| ()).map_err(Problem::from),
            None => Err(silent()),
        }
    }

    /// Gives a member with an empty disk the vote of the one that had its address. On the leader.
    pub(crate) async fn admit(&self, request: &JoinRequest) -> Result<(), MetastoreError> {
        let group = &self.0.group;
        let (replica, addr) = (ReplicaId(request.replica), NodeAddr(request.addr.clone()));
        if !self.0.members.contains(&request.addr) {
            let message = format!("{} is not in metastore.members", request.addr);
            return Err(MetastoreError::BadRequest(message));
        }
        let supported = stated(request.features.as_ref());
        let level = self.0.group.with_state(|machine| machine.state.feature_level());
        if !supported.contains(level) {
            return Err(MetastoreError::Release { level, supported });
        }
        let members = group.members();
        if members.voters.contains_key(&replica) {
            return Ok(());
        }
        group.read_index().await?;
        tracing::info!(%replica, %addr, "a member joins the metastore");
        if !members.learners.contains_key(&replica) {
            group.add_learner(replica, addr.clone()).await?;
        }
        let kept = group.members().voters.into_iter().filter(|(_, other)| *other != addr);
        let voters = kept.map(|(voter, _)| voter).chain([replica]).collect();
        group.set_voters(&voters).await?;
        tracing::info!(%replica, %addr, "the member has its vote");
        Ok(())
    }
}

fn silent() -> Problem {
    Problem::new(ErrorKind::Unavailable, "metastore_silent", "no answer")
}
