//! Clock functions under kills and replays: the rows of a batch bear the one instant that its recipe has (R1).

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use weir_connectors::encode;
use weir_connectors::files::Format;

use super::faults::FaultPlan;
use super::world::{Dice, Shape, World};
use super::{Kills, live};
use crate::support::{Bag, assert_same};

/// What recipes say, noted while they are there.
#[derive(Debug, Default)]
struct Recipes {
    instants_micros: BTreeSet<i64>,
    replayed_bytes: u64,
}

impl Recipes {
    /// Instants as a result has them.
    fn shown(&self) -> BTreeSet<String> {
        let millis: Vec<i64> = self.instants_micros.iter().map(|micros| micros.div_euclid(1_000)).collect();
        let schema = Arc::new(Schema::new(vec![Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), false)]));
        let column = Arc::new(TimestampMillisecondArray::from(millis));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).expect("a column");
        let lines = encode::encode(Format::Csv, &schema, &[batch]).expect("instants are encoded");
        String::from_utf8(lines).expect("text").lines().map(str::to_owned).collect()
    }
}

/// The rows without what the clock said, and all that it said.
fn split(found: &Bag) -> (Bag, BTreeSet<String>) {
    let (mut rows, mut instants) = (Bag::new(), BTreeSet::new());
    for (row, count) in found {
        let (rest, same) = row.rsplit_once(',').expect("columns");
        assert_eq!(same, "1", "the clock functions of a batch agree: {row}");
        let (rest, at) = rest.rsplit_once(',').expect("columns");
        *rows.entry(rest.to_owned()).or_default() += count;
        instants.insert(at.to_owned());
    }
    (rows, instants)
}

/// Lives through a world whose results say when they were made. Returns the bytes that were replayed on the way.
fn simulate(shape: Shape, seed: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let dice = Dice::new(seed);
        let world = World::new(shape, 900).asking_the_clock();
        let faults = Arc::new(FaultPlan::Random { dice: Arc::clone(&dice), one_in: 40 });
        let mut recipes = Recipes::default();
        let loaded = live(&world, &dice, &faults, Kills::AtAnyAwait, |heads| {
            let entries = heads.iter().flat_map(|head| &head.recent);
            recipes.instants_micros.extend(entries.map(|entry| entry.recipe.now_micros));
            recipes.replayed_bytes += heads.iter().map(|head| head.replayed_bytes).sum::<u64>();
        });
        let loaded = loaded.await;
        let (found, ..) = world.result(&loaded).await;
        let (rows, instants) = split(&found);
        assert_same(&format!("{shape:?}, seed {seed}"), &rows, &world.oracle());
        let known = recipes.shown();
        let unknown: Vec<_> = instants.difference(&known).collect();
        assert!(unknown.is_empty(), "{shape:?}, seed {seed}: no recipe has {unknown:?}");
        assert!(instants.len() > 3, "{shape:?}, seed {seed}: batches have instants of their own: {instants:?}");
        recipes.replayed_bytes
    })
}

#[test]
fn rows_bear_the_instant_of_their_batch_whatever_is_killed() {
    for seed in 0..20 {
        simulate(Shape::Stateless, seed);
    }
}

/// A replay that saw another clock would give another digest than the one committed, and stop (RP-1).
#[test]
fn a_clock_after_a_window_says_the_same_when_it_is_replayed() {
    let replayed: u64 = (0..20).map(|seed| simulate(Shape::Windowed, seed)).sum();
    assert!(replayed > 0, "nothing was replayed");
}
