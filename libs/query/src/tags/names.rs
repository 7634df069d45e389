//! A bounded, sorted set of attribute names by scope.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use clew_proto::query::v1::tag_names_response::Scope as ScopeMessage;
use clew_proto::query::v1::{Inspected, TagNamesResponse};
use clew_traceql::plan::Scope;

use super::Collect;
use super::bounded::{BoundedSet, Weighed};
use crate::QueryError;
use crate::engine::{QueryLimits, add_inspected};
use crate::source::{Selection, SpanSource};
use crate::view::SpanRef;

/// The first names of each scope that fit the bounds.
#[derive(Debug, Clone)]
pub(super) struct NameSet {
    wanted: Option<Scope>,
    empty: BoundedSet<Arc<str>>,
    names: BTreeMap<Scope, BoundedSet<Arc<str>>>,
}

impl Weighed for Arc<str> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl NameSet {
    pub(super) fn new(wanted: Option<Scope>, limit: u32, limits: &QueryLimits) -> NameSet {
        let empty = BoundedSet::new(limits.tags(limit), limits.tags_bytes_max);
        NameSet { wanted, empty, names: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, scope: Scope, name: &str) {
        let names = self.names.entry(scope).or_insert_with(|| self.empty.fresh());
        names.insert(Arc::from(name));
    }

    pub(super) fn into_response(mut self, inspected: Inspected) -> TagNamesResponse {
        let scopes = Scope::ALL.into_iter().filter_map(|scope| {
            let names = self.names.remove(&scope).filter(|names| !names.is_empty())?;
            let tags = names.into_members().map(|name| name.to_string()).collect();
            Some(ScopeMessage { name: scope.as_str().to_owned(), tags })
        });
        TagNamesResponse {
            scopes: scopes.collect(),
            inspected: Some(inspected),
            ..TagNamesResponse::default()
        }
    }
}

#[async_trait]
impl Collect for NameSet {
    /// An index names what is anywhere in it, not what is in some rows.
    async fn by_index(
        &mut self,
        source: &dyn SpanSource,
        within: Option<&Arc<Selection>>,
    ) -> Result<bool, QueryError> {
        if within.is_some() {
            return Ok(false);
        }
        for (scope, name) in source.tag_names(self.wanted).await? {
            self.insert(scope, &name);
        }
        Ok(true)
    }

    fn span(&mut self, span: &SpanRef<'_, '_>) {
        for scope in Scope::ALL {
            if self.wanted.is_none_or(|wanted| wanted == scope) {
                span.each_attribute(scope, &mut |pair| self.insert(scope, pair.key));
            }
        }
    }

    fn fresh(&self) -> NameSet {
        NameSet { wanted: self.wanted, empty: self.empty.fresh(), names: BTreeMap::new() }
    }

    fn absorb(&mut self, other: NameSet) {
        for (scope, names) in other.names {
            self.names.entry(scope).or_insert_with(|| self.empty.fresh()).absorb(names);
        }
    }
}

/// The names of all answers, each once, sorted; at most `limit` per scope unless that is zero.
pub fn merge_tag_names(
    responses: impl IntoIterator<Item = TagNamesResponse>,
    limit: u32,
) -> TagNamesResponse {
    let mut merged = NameSet::new(None, limit, &QueryLimits::default());
    let mut inspected = Inspected::default();
    for response in responses {
        for part in &response.scopes {
            if let Some(scope) = Scope::from_word(&part.name) {
                part.tags.iter().for_each(|name| merged.insert(scope, name));
            }
        }
        if let Some(part) = &response.inspected {
            add_inspected(&mut inspected, part);
        }
    }
    merged.into_response(inspected)
}
