//! What one dispatcher remembers of a slot: which look comes next, which call was made, who holds it.
//!
//! ```text
//! change | look --> heads --> decide_dispatch --> settled | given up
//!                                             |-> look at t  --> a look is armed by then: waits     | arm
//!                                             `-> call       --> a call is on its way:    waits     | arm, call
//! ```
//! It saves messages and calls, and may be forgotten at any time: then there are more of them. Never: a reason to leave an epoch unseen.
//! So it holds only what this process has done itself, a look counts as armed only until it is made, and a call only once it was taken.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dispatch::{Called, Dispatch, decide_dispatch};
use crate::head::Head;
use crate::ids::{Epoch, ShardKey};

/// How long after a call its slot is looked at, unless a lease says when.
pub const LOOK_AFTER: Duration = Duration::from_secs(15);
/// How long after the end of a lease: its holder may be renewing it.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// How much later than wanted a look may come that is armed already: so the look after a call serves for the lease that it began.
const ARMED_SLACK: Duration = Duration::from_secs(4);
/// How long a call may take until somebody has claimed what it is for.
const CALL_UNDER_WAY: Duration = Duration::from_secs(5);
/// How long a holder that was heard of is believed to be there still.
const HOLDER_BELIEVED: Duration = Duration::from_secs(1);

/// What to do about a slot, given what is on its way already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing, until something else happens.
    Settled,
    /// Nothing: a look or somebody who was called is on the way.
    Waits,
    /// Arm a look.
    Arm {
        /// When, microseconds UTC.
        at_micros: i64,
        /// The call that it follows up, the default if there was none.
        called: Called,
    },
    /// Arm a look after [`LOOK_AFTER`], then call a worker.
    Call(Called),
    /// Call nobody: each who came died before it could commit.
    GivenUp {
        /// A shard that kills.
        shard: ShardKey,
    },
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SlotMemory {
    /// When the look that was armed last comes.
    armed_micros: Option<i64>,
    /// The look that was made last, by the instant it was armed for.
    looked_micros: Option<i64>,
    /// The call that was made last, and when.
    made: Option<(i64, Called)>,
    /// Upstream epochs that are known to be committed.
    heard: BTreeMap<ShardKey, Epoch>,
    /// End of the lease that its holder wrote last, and when that was heard.
    held: Option<(i64, i64)>,
}

impl SlotMemory {
    /// Upstream shards have committed.
    pub fn hear(&mut self, news: &[(ShardKey, Epoch)]) {
        for (shard, epoch) in news {
            let known = self.heard.entry(*shard).or_default();
            *known = (*known).max(*epoch);
        }
    }

    /// One of its own heads has changed: its lease runs until then, or nobody holds it.
    pub fn hear_of_holder(&mut self, until_micros: Option<i64>, now_micros: i64) {
        self.held = until_micros.map(|until| (until, now_micros));
    }

    /// Whether news can be left to a holder heard of just now: it goes on reading until it lets go, which is a change of its own, and
    /// if it dies a look comes.
    #[must_use]
    pub fn is_left_to_its_holder(&self, now_micros: i64) -> bool {
        let believed = |(until, heard): (i64, i64)| {
            until > now_micros && now_micros < after(heard, HOLDER_BELIEVED) && self.is_armed_by(lease_is_over(until), now_micros)
        };
        self.held.is_some_and(believed)
    }

    /// A look has come that was armed for `planned_micros`. `false` if it is a repeat, or older than one that was made.
    #[must_use]
    pub fn begin_look(&mut self, planned_micros: i64) -> bool {
        if self.looked_micros.is_some_and(|looked| planned_micros <= looked) {
            return false;
        }
        self.looked_micros = Some(planned_micros);
        // It is on its way no more, however early it came.
        self.armed_micros = self.armed_micros.filter(|armed| *armed > planned_micros);
        true
    }

    /// That look could not be made, and its message comes again.
    pub fn take_look_back(&mut self, planned_micros: i64) {
        self.looked_micros = self.looked_micros.filter(|looked| *looked != planned_micros);
    }

    /// The instant to arm a look for, not before `at_micros`: never that of one that was made, whose repeats are known by it.
    #[must_use]
    pub fn plan(&self, at_micros: i64) -> i64 {
        self.looked_micros.map_or(at_micros, |looked| at_micros.max(looked.saturating_add(1)))
    }

    /// A look was armed.
    pub fn armed(&mut self, planned_micros: i64) {
        self.armed_micros = Some(planned_micros);
    }

    /// A call was taken; not before, or an event that is tried again would wait for a call that nobody made.
    pub fn called(&mut self, called: Called, now_micros: i64) {
        self.made = Some((now_micros, called));
    }

    /// Whether there is nothing that would be lost with it.
    #[must_use]
    pub fn is_stale(&self, now_micros: i64) -> bool {
        let old = |at: i64| now_micros >= after(at, 4 * LOOK_AFTER);
        self.armed_micros.is_none_or(old)
            && self.made.as_ref().is_none_or(|(at, _)| old(*at))
            && self.looked_micros.is_none_or(old)
    }

    /// Decides on the slot; see [`decide_dispatch`].
    ///
    /// - `look`: the call that the present look follows up.
    #[must_use]
    pub fn decide(
        &self,
        heads: &[Head],
        reads: impl Fn(ShardKey, ShardKey) -> bool,
        upstream: &[(ShardKey, Epoch)],
        look: Option<&Called>,
        now_micros: i64,
    ) -> Act {
        let made = self.made.as_ref().map(|(_, called)| called);
        let called: Vec<&Called> = made.into_iter().chain(look).collect();
        match decide_dispatch(heads, reads, upstream, &called, now_micros) {
            Dispatch::Settled => Act::Settled,
            Dispatch::GivenUp { shard } => Act::GivenUp { shard },
            Dispatch::LookAt { at_micros } if self.is_armed_by(lease_is_over(at_micros), now_micros) => Act::Waits,
            Dispatch::LookAt { at_micros } => {
                let called = made.or(look).cloned().unwrap_or_default();
                Act::Arm { at_micros: lease_is_over(at_micros), called }
            }
            Dispatch::Call => self.call(heads, upstream, now_micros),
        }
    }

    /// A call of the slot, unless one is on its way.
    #[must_use]
    pub fn call(&self, heads: &[Head], upstream: &[(ShardKey, Epoch)], now_micros: i64) -> Act {
        if self.is_under_way(heads, now_micros) {
            return Act::Waits;
        }
        let mut known = self.clone();
        known.hear(upstream);
        let known: Vec<_> = known.heard.into_iter().collect();
        Act::Call(Called::now(heads, &known))
    }

    /// Whether a look is sure to come at `at_micros` or not much later.
    #[must_use]
    pub fn is_armed_by(&self, at_micros: i64, now_micros: i64) -> bool {
        self.armed_micros.is_some_and(|armed| armed > now_micros && armed <= after(at_micros, ARMED_SLACK))
    }

    /// Whether the slot was called a moment ago and nobody has come yet: what is new meanwhile is seen by who comes.
    fn is_under_way(&self, heads: &[Head], now_micros: i64) -> bool {
        let unchanged = |called: &Called| heads.iter().map(|head| head.generation).eq(called.generations.iter().copied());
        self.made.as_ref().is_some_and(|(at, called)| now_micros < after(*at, CALL_UNDER_WAY) && unchanged(called))
    }
}

fn lease_is_over(until_micros: i64) -> i64 {
    after(until_micros, LEASE_MARGIN)
}

fn after(at_micros: i64, duration: Duration) -> i64 {
    at_micros.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Owner;
    use crate::ids::{Generation, JobId, OwnerId, ShardId, StageId};

    const SECOND: i64 = 1_000_000;

    fn key(stage: u16) -> ShardKey {
        ShardKey::new(JobId(1), StageId(stage), ShardId(0))
    }

    fn leased(until: i64) -> Vec<Head> {
        let owner = Some(Owner { id: OwnerId(7), lease_until_micros: until * SECOND });
        vec![Head { generation: Generation(1), owner, ..Head::new(key(1)) }]
    }

    fn decide(memory: &SlotMemory, heads: &[Head], epoch: u64, now: i64) -> Act {
        memory.decide(heads, |_, _| true, &[(key(0), Epoch(epoch))], None, now * SECOND)
    }

    #[test]
    fn a_look_far_later_than_the_lease_is_no_reason_to_arm_none() {
        let mut memory = SlotMemory::default();
        memory.armed(30 * SECOND);
        assert!(matches!(decide(&memory, &leased(5), 1, 0), Act::Arm { at_micros, .. } if at_micros == 6 * SECOND));
        memory.armed(10 * SECOND);
        assert_eq!(decide(&memory, &leased(5), 1, 0), Act::Waits);
        assert!(matches!(decide(&memory, &leased(20), 1, 10), Act::Arm { .. }), "it should have come by now");
    }

    #[test]
    fn a_look_that_comes_early_is_on_its_way_no_more() {
        let mut memory = SlotMemory::default();
        memory.armed(6 * SECOND);
        assert!(memory.begin_look(6 * SECOND));
        assert!(matches!(decide(&memory, &leased(5), 1, 4), Act::Arm { .. }));
        let planned = memory.plan(6 * SECOND);
        memory.armed(planned);
        assert!(!memory.begin_look(6 * SECOND), "a repeat of the first");
        assert!(memory.begin_look(planned), "the second");
        memory.take_look_back(planned);
        assert!(memory.begin_look(planned), "it failed, and comes again");
    }

    #[test]
    fn a_call_is_under_way_until_somebody_comes_or_it_took_too_long() {
        let free = vec![Head { owner: None, ..leased(0).remove(0) }];
        let mut memory = SlotMemory::default();
        let Act::Call(called) = decide(&memory, &free, 1, 0) else { panic!("it is free, and there is news") };
        assert_eq!(decide(&memory, &free, 1, 0), Act::Call(called.clone()), "nobody has taken the call yet");
        memory.called(called, 0);
        assert_eq!(decide(&memory, &free, 2, 4), Act::Waits);
        assert!(matches!(decide(&memory, &free, 2, 5), Act::Call(_)));
        let visited = vec![Head { generation: Generation(2), ..free[0].clone() }];
        assert_eq!(decide(&memory, &visited, 1, 4), Act::Settled, "somebody came, and had nothing to say");
        assert!(matches!(decide(&memory, &visited, 2, 4), Act::Call(_)));
    }

    #[test]
    fn a_call_is_for_all_that_is_known() {
        let free = vec![Head { owner: None, ..leased(0).remove(0) }];
        let mut memory = SlotMemory::default();
        memory.hear(&[(key(5), Epoch(3))]);
        let Act::Call(called) = decide(&memory, &free, 1, 0) else { panic!("it is free, and there is news") };
        assert_eq!(called.upto, [(key(0), Epoch(1)), (key(5), Epoch(3))]);
    }

    #[test]
    fn news_is_left_to_a_holder_heard_of_just_now_whose_end_is_looked_at() {
        let mut memory = SlotMemory::default();
        memory.hear_of_holder(Some(10 * SECOND), 0);
        assert!(!memory.is_left_to_its_holder(0), "nobody would look if it died");
        memory.armed(11 * SECOND);
        assert!(memory.is_left_to_its_holder(0));
        assert!(!memory.is_left_to_its_holder(SECOND));
        memory.hear_of_holder(None, 0);
        assert!(!memory.is_left_to_its_holder(0));
    }
}
