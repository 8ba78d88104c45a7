//! Pins of those who look, taken back when they have died (G2).

use weir_coordinator::{StoreError, retention};
use weir_model::decide::OwnerLiveness;
use weir_model::retention::Retention;
use weir_model::{JobId, OwnerId};

use crate::context::Ctx;

/// Takes back the pins of people who looked and died while they did; the floors rise with the next pass.
///
/// - `row`: of the job or stream `of`, as just read.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn unpin_the_dead(ctx: &Ctx, of: JobId, row: &Retention) -> Result<(), StoreError> {
    for reader in row.pins.keys() {
        let looker = retention::looker(reader);
        if looker.is_some_and(|owner| liveness(ctx, owner) == OwnerLiveness::Dead) {
            retention::unpin(ctx.table.as_ref(), of, reader).await?;
        }
    }
    Ok(())
}

/// This process lives, whether others can see that or not.
pub(crate) fn liveness(ctx: &Ctx, holder: OwnerId) -> OwnerLiveness {
    if holder == ctx.owner { OwnerLiveness::Alive } else { ctx.liveness.of(holder) }
}
