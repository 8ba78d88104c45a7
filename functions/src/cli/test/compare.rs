//! Rows that came against rows expected: as bags, for rows have no order across shards.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Expected, What};
use super::play::Played;
use super::results::minus;

/// What is wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Step and table.
    pub(super) place: String,
    /// Expected rows that did not come.
    pub(super) missing: Vec<String>,
    /// Rows that came and were not expected.
    pub(super) surplus: Vec<String>,
    /// Rows that came as expected.
    pub(super) same: usize,
}

/// Compares what a case expects with what came; empty if it passes.
pub(super) fn compare(case: &Case, played: &[Played]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut pending = Pending::default();
    for (number, (step, played)) in (1..).zip(case.steps.iter().zip(played)) {
        pending.add(played);
        for expected in &step.expected {
            let came = pending.take(expected, played);
            let place = format!("step {number}, {}.{}", expected.what.key(), expected.table);
            differences.extend(difference(place, &expected.rows, &came));
        }
    }
    differences.extend(pending.rest());
    let late = played.last().map_or(&[][..], |played| &played.late);
    let dead = played.last().map_or(&[][..], |played| &played.dead);
    differences.extend(counted("late", case.late, late));
    differences.extend(counted("dead", case.dead, dead));
    differences
}

/// Rows that no step has expected yet, by table.
#[derive(Debug, Default)]
pub(super) struct Pending {
    rows: BTreeMap<String, Vec<String>>,
    /// Of results that change, those that count now.
    counting: BTreeMap<String, Vec<String>>,
    /// Tables that were looked at.
    looked_at: BTreeSet<String>,
}

impl Pending {
    pub(super) fn add(&mut self, played: &Played) {
        for (table, seen) in &played.tables {
            match &seen.counting {
                Some(rows) => drop(self.counting.insert(table.clone(), rows.clone())),
                None => self.rows.entry(table.clone()).or_default().extend(seen.came.iter().cloned()),
            }
        }
    }

    /// What `expected` is to be compared with.
    pub(super) fn take(&mut self, expected: &Expected, played: &Played) -> Vec<String> {
        self.looked_at.insert(expected.table.clone());
        match (expected.what, self.counting.get(&expected.table)) {
            (What::Changes, _) => played.tables.get(&expected.table).map(|seen| seen.came.clone()).unwrap_or_default(),
            (What::Rows, Some(rows)) => rows.clone(),
            (What::Rows, None) => self.rows.remove(&expected.table).unwrap_or_default(),
        }
    }

    /// Rows that the case is silent about.
    fn rest(self) -> Vec<Difference> {
        let changing = self.counting.into_iter().filter(|(table, _)| !self.looked_at.contains(table));
        let left = self.rows.into_iter().chain(changing).filter(|(_, rows)| !rows.is_empty());
        let told = |(table, surplus)| Difference {
            place: format!("after the last step, {table} has rows that no step expects"),
            missing: Vec::new(),
            surplus,
            same: 0,
        };
        left.map(told).collect()
    }
}

fn difference(place: String, expected: &[String], came: &[String]) -> Option<Difference> {
    let (missing, surplus) = (minus(expected, came), minus(came, expected));
    let same = came.len() - surplus.len();
    (!missing.is_empty() || !surplus.is_empty()).then_some(Difference { place, missing, surplus, same })
}

/// Rows beside the results are expected by their number.
fn counted(what: &str, expected: u64, came: &[String]) -> Option<Difference> {
    let rows = if came.len() == 1 { "row" } else { "rows" };
    (came.len() as u64 != expected).then(|| Difference {
        place: format!("after the last step, {} {what} {rows}, {expected} expected", came.len()),
        missing: Vec::new(),
        surplus: came.to_vec(),
        same: 0,
    })
}

#[cfg(test)]
mod tests {
    use weir_plan::JobPlan;

    use super::*;
    use crate::cli::test::case::Step;
    use crate::cli::test::results::Seen;

    fn rows(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|row| (*row).to_owned()).collect()
    }

    fn case(expected: &[&[&str]]) -> Case {
        let of_step =
            |rows_of_step: &&[&str]| Expected { table: "hot".to_owned(), what: What::Rows, rows: rows(rows_of_step), span: 0..0 };
        let step = |rows_of_step: &&[&str]| Step {
            given: BTreeMap::new(),
            now_micros: 0,
            closes: false,
            expected: if rows_of_step.is_empty() { Vec::new() } else { vec![of_step(rows_of_step)] },
        };
        let plan = JobPlan { options: BTreeMap::new(), pipelines: Vec::new(), clock: weir_plan::BatchClock::default() };
        Case { sql: String::new(), plan, steps: expected.iter().map(step).collect(), late: 0, dead: 0 }
    }

    fn played(came: &[&str]) -> Played {
        let seen = Seen { came: rows(came), counting: None };
        Played { tables: BTreeMap::from([("hot".to_owned(), seen)]), ..Played::default() }
    }

    #[test]
    fn rows_wait_for_the_step_that_expects_them_in_any_order() {
        let case = case(&[&[], &["a", "b", "b"]]);
        assert_eq!(compare(&case, &[played(&["b", "a"]), played(&["b"])]), []);
        let found = compare(&case, &[played(&["b", "a"]), played(&["c"])]);
        assert_eq!((found[0].missing.clone(), found[0].surplus.clone(), found[0].same), (rows(&["b"]), rows(&["c"]), 2));
        assert_eq!(found[0].place, "step 2, expect.hot");
    }

    #[test]
    fn rows_that_nobody_expects_are_told() {
        let found = compare(&case(&[&["a"], &[]]), &[played(&["a"]), played(&["b"])]);
        assert_eq!(found[0].place, "after the last step, hot has rows that no step expects");
        assert_eq!(found[0].surplus, ["b"]);
        let late = Played { late: rows(&["x"]), ..played(&["a"]) };
        let found = compare(&case(&[&["a"]]), &[late]);
        assert_eq!(found[0].place, "after the last step, 1 late row, 0 expected");
    }
}
