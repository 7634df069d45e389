//! What holds at every moment, whatever goes wrong. Each rule has a file and an id; the promises that
//! a client can see for itself (P1 to P4, P9) are checked by the actors.

mod bucket;
mod calm;
mod grace;
mod history;
mod purge;
mod spans;
mod tiling;
mod watermark;

use std::collections::BTreeMap;

use clew_catalog::State;

use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::network::Name;

/// A rule about the catalog of one member of the metastore.
trait Rule: Send {
    /// Names the rule.
    fn id(&self) -> &'static str;

    /// Whether it is about the catalog alone, so that nothing is new in one that was seen before.
    fn sees_catalog_only(&self) -> bool;

    /// Looks at what a member has applied; gives what is wrong. `is_newest` tells that no member was
    /// ever seen with more, and that this is the first of those in this step: they are alike (I1).
    fn check(
        &mut self,
        member: &Name,
        state: &State,
        is_newest: bool,
        cluster: &Cluster,
    ) -> Result<(), String>;
}

/// All rules, with what they remember.
pub(crate) struct Rules {
    rules: Vec<Box<dyn Rule>>,
    newest: u64,
    /// The revision that each member had when it was seen last.
    seen: BTreeMap<Name, u64>,
}

impl Rules {
    pub(crate) fn new() -> Rules {
        let rules: Vec<Box<dyn Rule>> = vec![
            Box::<history::OneHistory>::default(),
            Box::<watermark::OnlyGrows>::default(),
            Box::new(tiling::FlushesTile),
            Box::new(bucket::ListedIsThere),
            Box::new(purge::PurgedIsFlushed),
            Box::new(grace::ReadIsThere),
            Box::<spans::NotMoreThanFlushed>::default(),
            Box::<calm::NotKeptBusy>::default(),
        ];
        Rules { rules, newest: 0, seen: BTreeMap::new() }
    }

    /// Checks every rule on every member that runs.
    pub(crate) fn check(&mut self, cluster: &Cluster, journal: &Journal) {
        let members = cluster.members();
        for (_, member) in &members {
            self.newest = self.newest.max(member.inspect(State::revision));
        }
        // One that comes back may have something else under the same number.
        self.seen.retain(|name, _| members.iter().any(|(here, _)| here == name));
        let mut wanted = Some(self.newest);
        for (name, member) in members {
            member.inspect(|state| {
                let revision = state.revision();
                let is_newest = wanted.take_if(|newest| *newest == revision).is_some();
                let is_known = self.seen.insert(name.clone(), revision) == Some(revision);
                let looks = |rule: &&mut Box<dyn Rule>| !(is_known && rule.sees_catalog_only());
                for rule in self.rules.iter_mut().filter(looks) {
                    if let Err(what) = rule.check(&name, state, is_newest, cluster) {
                        journal.violation(rule.id(), format_args!("{name}: {what}"));
                    }
                }
            });
        }
    }
}
