//! Enumerations: a fault at every single storage call, and a process killed before and after every single storage call.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use weir_functions::collector::{self, Search};
use weir_functions::context::Ctx;
use weir_functions::job::{self, Loaded};
use weir_functions::worker::{self, Invocation};

use super::faults::{FaultPlan, Life, Moment, MortalTable, mortal_objects};
use super::reader::PastReader;
use super::world::{Dice, ROWS, Shape, World};
use super::{Kills, live};
use crate::support::assert_same;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime")
}

/// Fails the 1st, 2nd, 3rd .. storage call, in each way, until a run meets no fault any more.
#[test]
fn a_fault_at_any_single_storage_call_changes_nothing() {
    let runtime = runtime();
    let mut enumerated = 0;
    for way in 1..=3 {
        for n in 1.. {
            let faults = FaultPlan::nth(n, way);
            runtime.block_on(async {
                let world = World::new(Shape::Windowed, 900);
                let loaded = live(&world, &Dice::new(42), &faults, Kills::None, |_| {}).await;
                let (found, events, _) = world.result(&loaded).await;
                assert_same(&format!("way {way}, call {n}"), &found, &world.oracle());
                assert_eq!(events, ROWS, "way {way}, call {n}");
            });
            if !faults.was_met() {
                break;
            }
            enumerated += 1;
        }
    }
    println!("{enumerated} single faults enumerated");
    assert!(enumerated > 100, "only {enumerated} storage calls were failed");
}

/// Kills the process before and after its 1st, 2nd, 3rd .. storage call, from the job's creation to its last word, until a run ends by
/// itself. What the file target does lies between two storage calls; a file half written is left there by each kill.
#[test]
fn a_process_killed_before_or_after_any_storage_call_loses_nothing() {
    for shape in [Shape::Windowed, Shape::Early, Shape::Stateless, Shape::Updating, Shape::Nested] {
        for moment in [Moment::Before, Moment::After] {
            let killed = (1..).take_while(|n| killed_at(shape, moment, *n)).count();
            println!("{shape:?}: {killed} kills, {moment:?} a storage call");
            assert!(killed > 100, "only {killed} processes were killed");
        }
    }
}

/// Whether a process met the n-th call and was killed there; another one then took the job to its end.
fn killed_at(shape: Shape, moment: Moment, n: u64) -> bool {
    let world = World::new(shape, 900);
    let life = Life::until(n, moment);
    let mut kills = 0;
    let loaded = loop {
        assert!(kills < 2, "{shape:?}, {moment:?} call {n}: killed twice");
        match one_process(&world, &life) {
            Some(loaded) => break loaded,
            None => kills += 1,
        }
        leave_half_written(&world);
    };
    let what = format!("{shape:?}, killed {moment:?} call {n}");
    runtime().block_on(async {
        let (found, events, late) = world.result(&loaded).await;
        assert_same(&what, &found, &world.oracle());
        assert_eq!((events, late), (ROWS, 0), "{what}");
        let ctx = world.process(Arc::clone(&world.objects) as _, Arc::clone(&world.table) as _);
        let mut reader = PastReader::default();
        reader.act(&ctx, &world, &loaded, &Dice::new(0)).await;
        reader.look(&world).await;
    });
    kills > 0 || life.calls() >= n
}

/// A process from its start to the job's end; `None` if it was killed. Everything of it goes with its runtime.
fn one_process(world: &World, life: &Arc<Life>) -> Option<Arc<Loaded>> {
    life.begin();
    let runtime = runtime();
    let table = MortalTable(Arc::clone(&world.table), Arc::clone(life));
    let ctx = world.process(mortal_objects(&world.objects, life), Arc::new(table));
    let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(whole_life(&ctx, world))));
    drop(runtime);
    match lived {
        Ok(loaded) => Some(loaded),
        Err(payload) if Life::is_kill(payload.as_ref()) => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// As the local host goes about it: create or open, serve every slot, collect, finish.
async fn whole_life(ctx: &Ctx, world: &World) -> Arc<Loaded> {
    let loaded = Arc::new(job::open_or_create(ctx, "sim", &world.sql(), 2, 12).await.expect("the job opens"));
    for turn in 0u32.. {
        assert!(turn < 3_000, "no progress");
        for shards in loaded.topology.slots() {
            let invocation = Invocation { job: loaded.job, shards, rounds_max: Some(2 + turn % 5), run_millis_max: None };
            let _left = worker::run(&invocation, ctx, &loaded).await.expect("nothing fails but by being killed");
        }
        let search = if turn % 3 == 0 { Search::Orphans } else { Search::Fallen };
        collector::collect(ctx, &loaded, search).await.expect("collected");
        if world.done(&loaded).await {
            break;
        }
    }
    weir_coordinator::jobs::finish(ctx.table.as_ref(), loaded.job).await.expect("finished");
    collector::collect(ctx, &loaded, Search::Orphans).await.expect("collected");
    loaded
}

/// What a process leaves that is killed while it stages a file: a part of it, in its staging folder.
fn leave_half_written(world: &World) {
    let names = |folder: &std::path::Path, keep: fn(&std::path::Path) -> bool| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| keep(path)).collect()
    };
    let visible = names(world.sink.path(), std::path::Path::is_file);
    for staging in names(&world.sink.path().join(".weir-staging"), std::path::Path::is_dir) {
        for file in &visible {
            let half = std::fs::read(file).expect("a result");
            let name = file.file_name().expect("a name");
            std::fs::write(staging.join(name), &half[..half.len() / 2]).expect("the staging folder is there");
        }
        std::fs::write(staging.join("part"), "2026-").expect("the staging folder is there");
    }
}
