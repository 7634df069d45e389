//! What a check of catalog and bucket found, and what is to be made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_catalog::{ObjectKey, ObjectMeta, Unsound};
use clew_model::TenantId;

use crate::blocks::Quarantined;
use crate::instant::rfc3339;

/// What is wrong with an object or a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Harm {
    /// It is there, and not what was written.
    Damaged(String),
    /// It is not there. It is read again as soon as it is.
    Missing,
}

impl std::fmt::Display for Harm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Harm::Damaged(why) => f.write_str(why),
            Harm::Missing => f.write_str("it is not in the bucket"),
        }
    }
}

/// A live object that is not what is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) key: ObjectKey,
    /// Whose block; nothing for all.
    pub(super) tenant: Option<TenantId>,
    pub(super) harm: Harm,
}

/// A block that queries leave out.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) known: Quarantined,
    /// It was read, and every byte of it is right.
    pub(super) is_whole: bool,
}

impl Suspect {
    pub(super) fn new(known: Quarantined) -> Suspect {
        Suspect { known, is_whole: false }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Live objects.
    pub(super) live: usize,
    /// Live objects and objects of quarantined blocks that are in the bucket.
    pub(super) present: usize,
    pub(super) listed: usize,
    pub(super) waiting: usize,
    pub(super) orphans: Vec<String>,
    pub(super) foreign: Vec<String>,
    pub(super) backups: usize,
    pub(super) broken: Vec<Broken>,
    /// The blocks that are quarantined.
    pub(super) suspects: Vec<Suspect>,
    pub(super) ahead: Option<String>,
    /// What is wrong with the catalog itself.
    pub(super) unsound: Vec<Unsound>,
}

impl Findings {
    pub(super) fn is_suspect(&self, key: ObjectKey, tenant: &TenantId) -> bool {
        self.suspects.iter().any(|s| s.known.object == key && s.known.block.tenant == *tenant)
    }

    pub(super) fn has_suspect_in(&self, key: ObjectKey) -> bool {
        self.suspects.iter().any(|suspect| suspect.known.object == key)
    }

    /// Forgets what was found of blocks that are not live, or not quarantined, any more.
    pub(super) fn keep_known(
        &mut self,
        live: &BTreeMap<ObjectKey, Arc<ObjectMeta>>,
        quarantined: &BTreeSet<(ObjectKey, TenantId)>,
    ) {
        let has = |object: &ObjectMeta, tenant: &TenantId| {
            object.block(tenant).is_some() && !quarantined.contains(&(object.key, tenant.clone()))
        };
        self.broken.retain(|Broken { key, tenant, .. }| {
            let object = live.get(key);
            object.is_some_and(|object| tenant.as_ref().is_none_or(|tenant| has(object, tenant)))
        });
        self.suspects.retain(|Suspect { known, .. }| {
            quarantined.contains(&(known.object, known.block.tenant.clone()))
        });
    }

    /// What is to be taken out of queries: the object, whose block (nothing for all), and why.
    pub(super) fn damaged(&self) -> impl Iterator<Item = (ObjectKey, Option<&TenantId>, &str)> {
        self.broken.iter().filter_map(|Broken { key, tenant, harm }| match harm {
            Harm::Damaged(why) => Some((*key, tenant.as_ref(), why.as_str())),
            Harm::Missing => None,
        })
    }

    fn missing(&self) -> usize {
        self.broken.iter().filter(|broken| broken.harm == Harm::Missing).count()
    }

    /// Whether the bucket holds nothing of the catalog, so that it is most likely another one.
    fn is_strange(&self) -> bool {
        self.present == 0 && self.live + self.suspects.len() > 0
    }

    /// Whether what was found may be acted upon.
    ///
    /// # Errors
    /// Text for people.
    pub(super) fn check_repairable(&self) -> Result<(), String> {
        if self.ahead.is_some() {
            return Err("the catalog lacks something: nothing is repaired".to_owned());
        }
        if self.is_strange() {
            return Err(format!("{}: nothing is repaired", self.strange()));
        }
        Ok(())
    }

    fn strange(&self) -> String {
        let live = self.live;
        format!("none of the {live} live objects is in this bucket, is it the cluster's own?")
    }

    /// Whether catalog and bucket agree.
    ///
    /// # Errors
    /// Text for people.
    pub(super) fn verdict(&self) -> Result<(), String> {
        if !self.unsound.is_empty() {
            return Err("the catalog contradicts itself".to_owned());
        }
        if self.is_strange() {
            return Err(self.strange());
        }
        if !self.broken.is_empty() || self.ahead.is_some() {
            return Err("the catalog and the bucket differ".to_owned());
        }
        if self.suspects.iter().any(|suspect| suspect.is_whole) {
            return Err("quarantined blocks are whole: --repair lets queries read them".to_owned());
        }
        Ok(())
    }

    /// Whether they agree now that what can be repaired is.
    ///
    /// # Errors
    /// Text for people.
    pub(super) fn verdict_of_repair(&self) -> Result<(), String> {
        match self.missing() {
            0 => Ok(()),
            missing => Err(format!(
                "{missing} objects are not in the bucket: restore them, and queries read them again"
            )),
        }
    }

    pub(super) fn report(&self, print: &mut dyn FnMut(&str)) {
        for unsound in &self.unsound {
            print(&format!("unsound: {unsound}\n"));
        }
        for Broken { key, tenant, harm } in &self.broken {
            let whose = tenant.as_ref().map_or(String::new(), |tenant| format!(" of {tenant}"));
            print(&format!("broken {key}{whose}: {harm}\n"));
        }
        for Suspect { known, is_whole } in &self.suspects {
            let (key, tenant, since) = (known.object, &known.block.tenant, rfc3339(known.at));
            let reason = known.reason.replace(['\n', '\t'], " ");
            let now = if *is_whole { "whole now, was: " } else { "" };
            print(&format!("quarantined {key} of {tenant} since {since}: {now}{reason}\n"));
        }
        for name in &self.orphans {
            print(&format!("orphan {name}\n"));
        }
        for name in &self.foreign {
            print(&format!("foreign {name}\n"));
        }
        if let Some(name) = &self.ahead {
            print(&format!(
                "the catalog is older than the bucket, or not settled since a restore: {name}\n"
            ));
        }
        print(&format!(
            "{} objects in the bucket, {} live, {} waiting or dead in the catalog, {} orphans, \
             {} foreign, {} broken, {} backups of the catalog, {} quarantined blocks\n",
            self.listed,
            self.live,
            self.waiting,
            self.orphans.len(),
            self.foreign.len(),
            self.broken.len(),
            self.backups,
            self.suspects.len(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use clew_catalog::{Incarnation, LogPoint, ShardId, TenantBlock};
    use clew_model::UnixNanos;

    use super::*;

    fn key(through: u64) -> ObjectKey {
        ObjectKey::flush(ShardId(1), Incarnation(1), through, 7)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn block(name: &str) -> TenantBlock {
        TenantBlock {
            tenant: tenant(name),
            offset: 0,
            length: 10,
            footer_length: 5,
            min_time: UnixNanos(1),
            max_time: UnixNanos(2),
            spans: 3,
            traces: 1,
            splits: 0,
            ids: None,
        }
    }

    fn object(through: u64, tenants: &[&str]) -> (ObjectKey, Arc<ObjectMeta>) {
        let meta = ObjectMeta {
            key: key(through),
            size: 100,
            from: through - 1,
            through: LogPoint { term: 1, leader: 1, index: through },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: tenants.iter().map(|name| block(name)).collect(),
        };
        (meta.key, Arc::new(meta))
    }

    fn broken(through: u64, whose: Option<&str>, harm: Harm) -> Broken {
        Broken { key: key(through), tenant: whose.map(tenant), harm }
    }

    fn suspect(through: u64, name: &str) -> Suspect {
        Suspect {
            known: Quarantined {
                object: key(through),
                size: 100,
                block: block(name),
                reason: "checksum".to_owned(),
                at: UnixNanos(0),
            },
            is_whole: true,
        }
    }

    #[test]
    fn what_was_compacted_or_quarantined_meanwhile_is_not_broken() {
        let damaged = || Harm::Damaged("checksum".to_owned());
        let mut found = Findings {
            live: 5,
            present: 4,
            broken: vec![
                broken(1, None, Harm::Missing),
                broken(2, Some("a"), damaged()),
                broken(2, Some("b"), damaged()),
                broken(3, Some("a"), damaged()),
                broken(4, None, Harm::Missing),
            ],
            suspects: vec![suspect(5, "a"), suspect(6, "a")],
            ..Findings::default()
        };
        // 1 was merged away, 2 has lost the block of b, the querier has found the damage of 3 itself.
        let live = BTreeMap::from([object(2, &["a"]), object(3, &["a"]), object(4, &["a"])]);
        let quarantined = BTreeSet::from([(key(3), tenant("a")), (key(5), tenant("a"))]);
        found.keep_known(&live, &quarantined);
        let left = [broken(2, Some("a"), damaged()), broken(4, None, Harm::Missing)];
        assert_eq!(found.broken, left);
        assert_eq!(found.suspects.len(), 1);
        let of_a = tenant("a");
        let damaged: Vec<_> = found.damaged().collect();
        assert_eq!(damaged, [(key(2), Some(&of_a), "checksum")], "what is missing may come back");
        assert!(found.verdict().is_err() && found.verdict_of_repair().is_err());
        found.broken.clear();
        assert!(found.verdict().is_err(), "a block that is whole is left out");
        assert!(found.verdict_of_repair().is_ok());
        found.suspects.clear();
        assert!(found.verdict().is_ok());
    }

    #[test]
    fn nothing_is_repaired_by_a_bucket_without_any_live_object() {
        let mut found = Findings { live: 3, ..Findings::default() };
        found.orphans.push("somebody else's".to_owned());
        assert!(found.check_repairable().is_err() && found.verdict().is_err());
        found.present = 1;
        assert!(found.check_repairable().is_ok());
        // All of them are quarantined: the bucket is as strange as before.
        let all = vec![suspect(1, "a")];
        let found = Findings { suspects: all, ..Findings::default() };
        assert!(found.check_repairable().is_err());
        assert!(Findings::default().check_repairable().is_ok(), "an empty cluster");
    }
}
