//! Reads from a shard's head: the cut of a query, and the leaf calls that use it.

use std::sync::Arc;

use bytes::Bytes;
use clew_catalog::Incarnation;
use clew_model::{TenantId, planted};
use clew_proto::query::v1::Cut;
use clew_proto::shard::v1::{Behind, TooOld};
use clew_query::{SpanSource, TableSource};

use crate::IngesterError;
use crate::head::Slice;
use crate::shard::Shard;

/// What a leaf call finds where it looks.
pub(crate) enum Place {
    /// The tenant's tables, ready to be searched.
    Sources(Vec<Arc<dyn SpanSource>>),
    /// The entries have been flushed: these objects hold them.
    Behind(Behind),
    /// The entries have been flushed, and the caller's view is too old to be helped.
    TooOld(TooOld),
}

impl Shard {
    /// Confirms that this node leads, waits until the head has caught up, and gives U.
    pub(crate) async fn cut(&self, incarnation: u64) -> Result<u64, IngesterError> {
        self.check_incarnation(incarnation)?;
        self.ready().await?;
        if planted("bug::read_without_index") {
            return Ok(*self.head.consumed().borrow());
        }
        let upto = self.group.read_index().await?;
        self.consumed(upto).await?;
        Ok(upto)
    }

    /// The tenant's part of the head in (W, U].
    pub(crate) async fn place(&self, tenant: &TenantId, cut: &Cut) -> Result<Place, IngesterError> {
        self.check_incarnation(cut.incarnation)?;
        self.ready().await?;
        if cut.stretch != 0 && cut.stretch != self.stretch() {
            return Ok(Place::TooOld(TooOld { watermark: cut.watermark }));
        }
        // Also right at a later leader: it first catches up to the same index.
        self.consumed(cut.upto).await?;
        match self.head.slice(tenant, cut.watermark, cut.upto) {
            // It was rebuilt in between.
            Slice::Behind => Err(IngesterError::TimedOut("the head to catch up")),
            Slice::Tables(tables) => {
                let name = format!("head of shard {}", self.shard.0);
                let source = |(table, rows): (Arc<crate::head::TenantTable>, u32)| {
                    let tasks = self.deps.tasks.clone();
                    let source = TableSource::active(&name, table.table.clone(), rows, tasks);
                    Arc::new(source) as Arc<dyn SpanSource>
                };
                Ok(Place::Sources(tables.into_iter().map(source).collect()))
            }
            Slice::FlushedThrough(through) => Ok(self.behind(cut.watermark, through)),
            Slice::Misaligned => {
                self.rebuild();
                Err(IngesterError::TimedOut("the head to be rebuilt"))
            }
        }
    }

    fn behind(&self, watermark: u64, through: u64) -> Place {
        match self.recent.covering(watermark, through) {
            Some(objects) => Place::Behind(Behind {
                watermark: through,
                objects: objects.iter().map(|object| Bytes::from(object.encode())).collect(),
            }),
            None => Place::TooOld(TooOld { watermark: through }),
        }
    }

    fn check_incarnation(&self, incarnation: u64) -> Result<(), IngesterError> {
        if incarnation != self.incarnation.0 {
            return Err(IngesterError::OtherIncarnation(Incarnation(self.incarnation.0)));
        }
        Ok(())
    }
}
