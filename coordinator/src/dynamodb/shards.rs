//! Which shards of a stream are read, and from where. Pure: no I/O, no clock.
//!
//! A stream is a forest: a shard ends after some hours, or when its part of the table is split, and children follow it. All changes
//! of one item are in one line of descent, so a child waits until its parent was read to the end.

use std::collections::BTreeMap;

/// Where a reading of the stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With the next change.
    Now,
    /// With the oldest that the stream still has, a day ago.
    Oldest,
}

/// Where in a shard to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// With the next change.
    Latest,
    /// With its first that is still there.
    Oldest,
    /// After this sequence number.
    After(String),
}

/// A shard as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its id.
    pub(super) id: String,
    /// The shard it follows.
    pub(super) parent: Option<String>,
    /// Whether it takes no more changes.
    pub(super) ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting(Start),
    Reading { iterator: String, last: Option<String> },
    Done,
}

/// The shards known so far.
#[derive(Debug)]
pub(super) struct Shards {
    since: Since,
    known: BTreeMap<String, (Option<String>, State)>,
    listed: bool,
}

impl Shards {
    /// None yet.
    pub(super) fn new(since: Since) -> Self {
        Self { since, known: BTreeMap::new(), listed: false }
    }

    /// Whether the shards must be listed: never done, or one was read to its end and none that follows it is known.
    pub(super) fn is_stale(&self) -> bool {
        let followed = |id: &String| self.known.values().any(|(parent, _)| parent.as_ref() == Some(id));
        let read_out = |(id, (_, state)): (&String, &(Option<String>, State))| *state == State::Done && !followed(id);
        !self.listed || self.known.iter().any(read_out)
    }

    /// Takes in a list of all shards. Those that the service has forgotten are forgotten.
    pub(super) fn learn(&mut self, listed: Vec<Listed>) {
        let first = !std::mem::replace(&mut self.listed, true);
        let mut before = std::mem::take(&mut self.known);
        let has_child: Vec<String> = listed.iter().filter_map(|shard| shard.parent.clone()).collect();
        for shard in listed {
            let new = match self.since {
                Since::Now if first && shard.ended && has_child.contains(&shard.id) => State::Done,
                Since::Now if first => State::Waiting(Start::Latest),
                Since::Now | Since::Oldest => State::Waiting(Start::Oldest),
            };
            let state = before.remove(&shard.id).map_or(new, |(_, state)| state);
            self.known.insert(shard.id, (shard.parent, state));
        }
    }

    /// Shards to begin now, and where.
    pub(super) fn to_begin(&self) -> Vec<(String, Start)> {
        let unread = |id: &String| self.known.get(id).is_some_and(|(_, state)| *state != State::Done);
        let mut begin = Vec::new();
        for (id, (parent, state)) in &self.known {
            if let State::Waiting(start) = state
                && !parent.as_ref().is_some_and(unread)
            {
                begin.push((id.clone(), start.clone()));
            }
        }
        begin
    }

    /// Shards being read, with the iterator of each.
    pub(super) fn reading(&self) -> Vec<(String, String)> {
        let iterator = |(id, (_, state)): (&String, &(Option<String>, State))| match state {
            State::Reading { iterator, .. } => Some((id.clone(), iterator.clone())),
            State::Waiting(_) | State::Done => None,
        };
        self.known.iter().filter_map(iterator).collect()
    }

    /// The service gave the iterator to go on with, or said that the shard is read to its end.
    ///
    /// - `last`: sequence number of the last change read, if there was one.
    pub(super) fn goes_on(&mut self, id: &str, iterator: Option<String>, last: Option<String>) {
        let Some((_, state)) = self.known.get_mut(id) else { return };
        let before = match state {
            State::Reading { last, .. } => last.take(),
            State::Waiting(Start::After(sequence)) => Some(sequence.clone()),
            State::Waiting(_) | State::Done => None,
        };
        *state = match iterator {
            Some(iterator) => State::Reading { iterator, last: last.or(before) },
            None => State::Done,
        };
    }

    /// The iterator is too old: begin again after what was read.
    pub(super) fn expired(&mut self, id: &str) {
        let Some((_, state)) = self.known.get_mut(id) else { return };
        if let State::Reading { last, .. } = state {
            let start = last.take().map_or(Start::Latest, Start::After);
            *state = State::Waiting(start);
        }
    }

    /// What was asked for is older than what the service keeps: begin with what it has.
    pub(super) fn trimmed(&mut self, id: &str) {
        if let Some((_, state)) = self.known.get_mut(id) {
            *state = State::Waiting(Start::Oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(shards: &[(&str, Option<&str>, bool)]) -> Vec<Listed> {
        let shard = |(id, parent, ended): &(&str, Option<&str>, bool)| Listed {
            id: (*id).to_owned(),
            parent: parent.map(str::to_owned),
            ended: *ended,
        };
        shards.iter().map(shard).collect()
    }

    fn begun(shards: &Shards) -> Vec<(String, Start)> {
        shards.to_begin()
    }

    fn at(id: &str, start: Start) -> (String, Start) {
        (id.to_owned(), start)
    }

    #[test]
    fn from_now_on_only_the_open_shards_are_read() {
        let mut shards = Shards::new(Since::Now);
        assert!(shards.is_stale());
        shards.learn(listed(&[("a", None, true), ("b", Some("a"), false), ("c", Some("a"), false)]));
        assert_eq!(begun(&shards), [at("b", Start::Latest), at("c", Start::Latest)]);
        assert!(!shards.is_stale());
    }

    #[test]
    fn children_wait_for_their_parent_and_then_are_read_from_their_beginning() {
        let mut shards = Shards::new(Since::Now);
        shards.learn(listed(&[("a", None, false)]));
        shards.goes_on("a", Some("1".into()), None);
        assert_eq!(shards.reading(), [("a".to_owned(), "1".to_owned())]);
        shards.goes_on("a", None, None);
        assert!(shards.is_stale(), "what follows it is not known yet");
        shards.learn(listed(&[("a", None, true)]));
        assert!(shards.is_stale() && begun(&shards).is_empty());
        shards.learn(listed(&[("a", None, true), ("b", Some("a"), true), ("c", Some("b"), false)]));
        assert_eq!(begun(&shards), [at("b", Start::Oldest)]);
        shards.goes_on("b", Some("2".into()), None);
        assert!(begun(&shards).is_empty(), "c waits for b");
        shards.goes_on("b", None, Some("9".into()));
        assert_eq!(begun(&shards), [at("c", Start::Oldest)]);
        assert!(!shards.is_stale());
    }

    #[test]
    fn from_the_oldest_on_every_line_is_read_from_its_root() {
        let mut shards = Shards::new(Since::Oldest);
        shards.learn(listed(&[("b", Some("forgotten"), true), ("c", Some("b"), false)]));
        assert_eq!(begun(&shards), [at("b", Start::Oldest)]);
    }

    #[test]
    fn an_expired_iterator_goes_on_after_what_was_read() {
        let mut shards = Shards::new(Since::Now);
        shards.learn(listed(&[("a", None, false)]));
        shards.goes_on("a", Some("1".into()), None);
        shards.goes_on("a", Some("2".into()), Some("77".into()));
        shards.goes_on("a", Some("3".into()), None);
        shards.expired("a");
        assert_eq!(begun(&shards), [at("a", Start::After("77".into()))]);
        shards.goes_on("a", Some("4".into()), None);
        shards.expired("a");
        assert_eq!(begun(&shards), [at("a", Start::After("77".into()))], "kept over a second time");
        shards.trimmed("a");
        assert_eq!(begun(&shards), [at("a", Start::Oldest)]);
    }

    #[test]
    fn shards_that_the_service_forgot_are_forgotten() {
        let mut shards = Shards::new(Since::Oldest);
        shards.learn(listed(&[("a", None, true), ("b", Some("a"), false)]));
        shards.goes_on("a", None, None);
        shards.learn(listed(&[("b", Some("a"), false)]));
        assert_eq!(shards.known.len(), 1);
        assert_eq!(begun(&shards), [at("b", Start::Oldest)]);
    }
}
