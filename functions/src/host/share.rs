//! What a process of several leaves to the others: the host knows how much it holds, its workers do not.

use std::sync::Arc;

use weir_model::decide::OwnerLiveness;
use weir_model::{Clock, OwnerId};
use weir_seams::Liveness;

use super::slots::Slots;

/// Liveness as the worker of one slot sees it: it leaves where this process holds more than its share.
#[derive(Debug)]
pub(super) struct FairShare {
    pub(super) others: Arc<dyn Liveness>,
    pub(super) slots: Arc<Slots>,
    pub(super) index: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl Liveness for FairShare {
    fn of(&self, owner: OwnerId) -> OwnerLiveness {
        self.others.of(owner)
    }

    fn participants(&self) -> usize {
        self.others.participants()
    }

    fn share_wanted(&self) -> bool {
        self.slots.yields(self.index, self.participants(), self.clock.monotonic_micros())
    }
}
