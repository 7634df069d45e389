//! P5: what the catalog lists is in the bucket, whole. That nothing else is there can only hold in
//! the end, and is checked then.

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

pub(super) struct ListedIsThere;

impl Rule for ListedIsThere {
    fn id(&self) -> &'static str {
        "P5"
    }

    fn sees_catalog_only(&self) -> bool {
        false
    }

    fn check(
        &mut self,
        _: &Name,
        state: &State,
        is_newest: bool,
        cluster: &Cluster,
    ) -> Result<(), String> {
        // One that is behind lists what others may have compacted and deleted since.
        if !is_newest {
            return Ok(());
        }
        let store = &cluster.outside.store;
        for object in state.objects() {
            let size = store.size_of(&object.key.to_string());
            if size != Some(object.size) {
                let wanted = object.size;
                return Err(format!("{} has {wanted} bytes, in the bucket {size:?}", object.key));
            }
        }
        Ok(())
    }
}
