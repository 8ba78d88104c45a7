//! A reader of the past: pins, reads heads, and looks again and again whether all that they name is still there (GC-1).

use std::collections::BTreeSet;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_coordinator::{jobs, retention};
use weir_functions::context::Ctx;
use weir_functions::job::Loaded;
use weir_model::retention::Pin;
use weir_state::collect::{self, Past};
use weir_state::kept;

use super::world::{Dice, World};

const NAME: &str = "reader";

#[derive(Debug, Default)]
pub(super) struct PastReader {
    /// What the heads named when they were read, while the pin stands.
    needs: BTreeSet<String>,
}

impl PastReader {
    /// Does the next thing: pins and reads, or looks, and some day lets go.
    pub(super) async fn act(&mut self, ctx: &Ctx, world: &World, loaded: &Loaded, dice: &Dice) {
        if self.needs.is_empty() {
            // Whoever does not hear that the pin stands has none; it pins again some day.
            self.needs = pinned(ctx, loaded).await.unwrap_or_default();
            return;
        }
        self.look(world).await;
        if dice.below(3) == 0 {
            // Whoever does not hear that the pin is gone may have none any more.
            let _heard = retention::unpin(ctx.table.as_ref(), loaded.job, NAME).await;
            self.needs.clear();
        }
    }

    /// Asserts that everything is there.
    pub(super) async fn look(&self, world: &World) {
        for object in &self.needs {
            let found = world.objects.head(&Path::from(object.as_str())).await;
            assert!(found.is_ok(), "GC-1: {object} is pinned and gone");
        }
    }
}

/// Pins first, then reads: heads read before the pin may name what is gone (G2).
async fn pinned(ctx: &Ctx, loaded: &Loaded) -> Option<BTreeSet<String>> {
    let pin = Pin { everything: true, ..Pin::default() };
    retention::pin(ctx.table.as_ref(), loaded.job, NAME, &pin).await.ok()?;
    let row = retention::read(ctx.table.as_ref(), loaded.job).await.ok()?;
    let heads = jobs::heads(ctx.table.as_ref(), &loaded.topology.all_shards()).await.ok()?;
    let mut needs = BTreeSet::new();
    for head in &heads {
        let floor = row.floor(&head.shard.to_string());
        // What this head names; checkpoints that it no longer names may have gone before the pin.
        needs.extend(collect::named_by(ctx.objects.as_ref(), head, floor, Past::Free).await.ok()?.live);
        needs.extend(kept::objects(ctx.objects.as_ref(), head).await.ok()?);
    }
    Some(needs)
}
