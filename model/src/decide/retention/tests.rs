use proptest::prelude::*;

use super::*;

fn reader(of: &str, restart: u64) -> Reader {
    Reader { of: of.to_owned(), restart: Epoch(restart) }
}

fn needs(shard: &str, first: u64) -> Pin {
    Pin { needs: BTreeMap::from([(shard.to_owned(), Epoch(first))]), everything: false }
}

fn pinned(row: &Retention, pin: Pin) -> Retention {
    match decide_pin(row, "q", pin) {
        PinDecision::Write(next) => next,
        PinDecision::TooLate { shard, floor } => panic!("{shard} {floor}"),
    }
}

#[test]
fn the_slowest_reader_holds_the_floor() {
    let next = decide_floors(&Retention::new(), &[reader("a", 5), reader("a", 3), reader("b", 0)]).unwrap();
    assert_eq!((next.floor("a"), next.floor("b")), (Epoch(3), Epoch(0)));
    assert_eq!(decide_floors(&next, &[reader("a", 2)]), None, "a floor never falls");
    assert_eq!(decide_floors(&next, &[]), None, "a shard that nobody is known to read keeps its floor");
}

#[test]
fn a_pin_holds_the_floor_below_what_it_needs() {
    let row = pinned(&Retention::new(), needs("a", 3));
    assert_eq!(decide_floors(&row, &[reader("a", 9)]).unwrap().floor("a"), Epoch(2));
    let row = pinned(&Retention::new(), Pin { everything: true, ..Pin::default() });
    assert_eq!(decide_floors(&row, &[reader("a", 9)]), None);
}

#[test]
fn a_pin_on_what_may_be_gone_is_refused() {
    let row = decide_floors(&Retention::new(), &[reader("a", 3)]).unwrap();
    assert_eq!(decide_pin(&row, "q", needs("a", 3)), PinDecision::TooLate { shard: "a".to_owned(), floor: Epoch(3) });
    assert!(matches!(decide_pin(&row, "q", needs("a", 4)), PinDecision::Write(_)));
}

#[test]
fn an_orphan_goes_only_when_its_generation_is_over() {
    assert_eq!(decide_orphan(Generation(1), Generation(2), false), Orphan::Delete);
    assert_eq!(decide_orphan(Generation(2), Generation(2), false), Orphan::ClaimFirst);
    assert_eq!(decide_orphan(Generation(1), Generation(2), true), Orphan::Keep);
}

#[test]
fn orphans_of_a_pinned_shard_stay() {
    let row = pinned(&Retention::new(), needs("a", 1));
    assert!(!orphans_may_go(&row, "a"));
    assert!(orphans_may_go(&row, "b"));
    assert!(!orphans_may_go(&pinned(&row, Pin { everything: true, ..Pin::default() }), "b"));
}

proptest! {
    /// G2 and G3 at once: whatever the order of pins, unpins and raises, no floor reaches a restart point's successor or a pin, or falls.
    #[test]
    fn floors_pass_neither_readers_nor_pins(steps in prop::collection::vec((0u8..3, 0u64..6, 0u64..6), 1..40)) {
        let mut row = Retention::new();
        for (kind, x, y) in steps {
            let before = row.clone();
            match kind {
                0 => if let Some(next) = decide_floors(&row, &[reader("a", x), reader("a", y)]) {
                    prop_assert!(next.floor("a") <= Epoch(x.min(y)));
                    prop_assert_eq!(&next.pins, &row.pins);
                    row = next;
                },
                1 => if let PinDecision::Write(next) = decide_pin(&row, &x.to_string(), needs("a", y)) { row = next },
                _ => { row.pins.remove(&x.to_string()); }
            }
            prop_assert!(row.floor("a") >= before.floor("a"));
            prop_assert!(row.pins.values().all(|pin| pin.needs["a"] > row.floor("a")));
        }
    }
}
