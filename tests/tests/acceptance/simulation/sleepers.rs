//! Lanes that sleep: nobody waits for them, windows fire meanwhile, and what they bring when they wake is late or counted, never a second
//! result of a window (W1, W2, EO-1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use weir_connectors::{Pull, Source, SourceError, SourceReader};
use weir_model::Offset;

use super::faults::FaultPlan;
use super::world::{Dice, ROWS, Shape, World};
use super::{Kills, live};

/// Splits at which a lane sleeps.
fn sleeps_at(split: u64) -> bool {
    split % 7 == 3
}

/// Times a lane is asked in vain before it wakes, by whatever process.
const ASKED_IN_VAIN: u32 = 12;

/// How often each split was asked for.
pub(super) type Asked = Arc<Mutex<BTreeMap<u64, u32>>>;

/// A source whose lanes have nothing at some places until they were asked often enough.
#[derive(Debug)]
pub(super) struct Sleepy {
    pub(super) inner: Arc<dyn Source>,
    pub(super) asked: Asked,
}

#[async_trait]
impl Source for Sleepy {
    fn bounded(&self) -> bool {
        self.inner.bounded()
    }

    async fn open(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let inner = self.inner.open(lane, lanes, from, projection).await?;
        let split = if from == Offset::default() { u64::from(lane) } else { from.split };
        Ok(Box::new(SleepyReader { inner, asked: Arc::clone(&self.asked), split }))
    }
}

#[derive(Debug)]
struct SleepyReader {
    inner: Box<dyn SourceReader>,
    asked: Asked,
    /// Where it goes on.
    split: u64,
}

#[async_trait]
impl SourceReader for SleepyReader {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        if sleeps_at(self.split) {
            let mut asked = self.asked.lock().expect("nobody panics with it");
            let times = asked.entry(self.split).or_default();
            *times += 1;
            if *times <= ASKED_IN_VAIN {
                return Ok(Pull::Later);
            }
        }
        let pull = self.inner.next().await?;
        if let Pull::Rows(rows) = &pull {
            self.split = rows.upto.split;
        }
        Ok(pull)
    }
}

/// Plays that rows of the sink say, and how many rows each window has at most.
fn plays_and_rows_of_a_window<'a>(rows: impl Iterator<Item = (&'a String, &'a usize)>) -> (u64, usize) {
    let (mut plays, mut windows) = (0, BTreeMap::<&str, usize>::new());
    for (row, count) in rows {
        let mut columns = row.split(',');
        *windows.entry(columns.next().expect("a window")).or_default() += count;
        plays += columns.next().expect("plays").parse::<u64>().expect("a number") * *count as u64;
    }
    (plays, windows.into_values().max().unwrap_or(0))
}

/// Songs of a world's windows.
const KEYS: usize = 20;

#[test]
fn rows_of_lanes_that_slept_are_counted_once_and_no_window_has_a_second_result() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let mut late_by_shape = [0; 2];
    for seed in 0..60 {
        late_by_shape[usize::from(seed % 2 == 0)] += runtime.block_on(async {
            let dice = Dice::new(seed);
            let shape = if seed % 2 == 0 { Shape::Windowed } else { Shape::Early };
            let world = World::new(shape, 900).with_lanes_that_sleep();
            let faults = Arc::new(FaultPlan::Random { dice: Arc::clone(&dice), one_in: 40 });
            let loaded = live(&world, &dice, &faults, Kills::AtAnyAwait, |_| {}).await;
            // Of a changelog the world itself refuses a result that comes as if it were the first.
            let (found, events, late) = world.result(&loaded).await;
            let (counted, rows_of_a_window) = plays_and_rows_of_a_window(found.iter());
            assert_eq!((events, counted + late), (ROWS, ROWS), "seed {seed}, {shape:?}: on time {counted}, late {late}");
            assert!(rows_of_a_window <= KEYS, "seed {seed}, {shape:?}: a window has {rows_of_a_window} results");
            late
        });
    }
    assert!(late_by_shape.iter().all(|late| *late > 0), "no window fired while a lane slept: {late_by_shape:?} late");
}
