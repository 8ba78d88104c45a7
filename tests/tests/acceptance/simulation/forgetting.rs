//! Keys that are forgotten amid faults and kills: which ones depends on the schedule, but a replay forgets the same ones, or its digest
//! would be another and the job would stop.

use std::sync::Arc;

use super::faults::FaultPlan;
use super::world::{Dice, ROWS, Shape, World};
use super::{Kills, live};

#[test]
fn a_replay_forgets_the_keys_that_the_batch_forgot() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let (mut forgetful, mut faithful) = (0, 0);
    for seed in 0..60 {
        runtime.block_on(async {
            let dice = Dice::new(seed);
            let ttl = ["50 ms", "1 s", "20 s", "1 h"][usize::try_from(dice.below(4)).expect("small")];
            let world = World::new(Shape::Updating, 900).forgetting_after(ttl);
            let faults = Arc::new(FaultPlan::Random { dice: Arc::clone(&dice), one_in: 12 + dice.below(80) });
            let loaded = live(&world, &dice, &faults, Kills::AtAnyAwait, |_| {}).await;
            let (found, events, _) = world.result(&loaded).await;
            assert_eq!(events, ROWS, "seed {seed}: rows counted");
            if found == world.oracle() { faithful += 1 } else { forgetful += 1 }
        });
    }
    assert!(forgetful > 5 && faithful > 5, "{forgetful} of 60 runs forgot a key, {faithful} did not");
}
