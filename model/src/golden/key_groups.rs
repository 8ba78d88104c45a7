use super::golden;
use crate::key_group::{CanonicalKey, KEY_GROUPS_DEFAULT, KeyGroup};

const KEYS: usize = 200;
/// So many groups that nearly every change of the hash or of the bytes shows.
const GROUPS_MAX: u16 = u16::MAX;

/// Keys by name, as canonical bytes.
#[derive(Default)]
struct Keys(Vec<(String, Vec<u8>)>);

impl Keys {
    fn add(&mut self, name: impl Into<String>, write: impl FnOnce(&mut CanonicalKey)) {
        let mut key = CanonicalKey::default();
        write(&mut key);
        self.0.push((name.into(), key.bytes().to_vec()));
    }

    fn integers(&mut self) {
        for value in [i64::from(i8::MIN), i64::from(i16::MIN), i64::from(i32::MIN), i64::MIN] {
            for value in [value, value + 1, -(value + 1)] {
                self.add(format!("integer {value}"), |key| key.integer(value));
            }
        }
        for value in -5..=12 {
            self.add(format!("integer {value}"), |key| key.integer(value));
        }
        for power in 2..=18 {
            let value = 10i64.pow(power);
            self.add(format!("integer {value}"), |key| key.integer(value));
        }
        let widest = [u64::from(u8::MAX), u64::from(u16::MAX), u64::from(u32::MAX), i64::MAX as u64];
        for value in widest.into_iter().chain([i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX]) {
            self.add(format!("unsigned {value}"), |key| key.unsigned(value));
        }
    }

    fn numbers(&mut self) {
        let floats = [0.0, -0.0, f64::NAN, -f64::NAN, 1.0, -1.0, 0.1, 1e300, f64::MIN_POSITIVE, f64::from_bits(1), f64::EPSILON];
        for value in floats.into_iter().chain([f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::from(0.1f32)]) {
            self.add(format!("float {:016x}", value.to_bits()), |key| key.float(value));
        }
        let decimals = [(0, 0), (0, 2), (1, 0), (10, 1), (100, 2), (-1, 2), (1_234_567, 3), (5, -3)];
        for (unscaled, scale) in decimals.into_iter().chain([(i128::MAX, 38), (i128::MIN, 38)]) {
            self.add(format!("decimal {unscaled} scale {scale}"), |key| key.decimal(unscaled, scale));
        }
    }

    fn texts(&mut self) {
        let texts = ["", " ", "a", "A", "ab", "song", "söng", "日本語", "🎵", "é", "e\u{301}", "a\0b", "two\nlines", "NULL", "0"];
        for value in texts {
            self.add(format!("string {value:?}"), |key| key.string(value));
        }
        self.add("string of 300 x", |key| key.string(&"x".repeat(300)));
        for value in 0..12 {
            self.add(format!("string \"bidder-{value}\""), |key| key.string(&format!("bidder-{value}")));
        }
        let bytes: [&[u8]; 5] = [b"", &[0], &[0xff], &[0; 16], b"song"];
        for value in bytes {
            self.add(format!("bytes {value:?}"), |key| key.binary(value));
        }
    }

    fn times(&mut self) {
        let days = [0, 1, -1, 1_767_225_600_000_000_000, -2_208_988_800_000_000_000, 253_402_300_799_000_000_000];
        for nanos in days.into_iter().chain([1_000, 1_000_000, 1_000_000_000, i128::from(i64::MIN), i128::from(i64::MAX)]) {
            self.add(format!("instant {nanos}"), |key| key.instant(nanos));
        }
        for days in [0, 1, -1, 20_000, -719_162, i32::MIN, i32::MAX] {
            self.add(format!("date {days}"), |key| key.date(days));
        }
        for nanos in [0, 1, 43_200_000_000_000, 86_399_999_999_999] {
            self.add(format!("time of day {nanos}"), |key| key.time_of_day(nanos));
        }
    }

    fn others(&mut self) {
        self.add("no columns", |_| ());
        self.add("null", CanonicalKey::null);
        for value in [false, true] {
            self.add(format!("boolean {value}"), |key| key.boolean(value));
        }
    }

    fn composites(&mut self) {
        self.add("null, null", |key| {
            key.null();
            key.null();
        });
        for (first, second) in [("a", ""), ("", "a"), ("ab", "c"), ("a", "bc")] {
            self.add(format!("string {first:?}, string {second:?}"), |key| {
                key.string(first);
                key.string(second);
            });
        }
        for song in 0.. {
            if self.0.len() == KEYS {
                return;
            }
            self.add(format!("integer {song}, null, string \"söng-{song}\", boolean, instant"), |key| {
                key.integer(song);
                key.null();
                key.string(&format!("söng-{song}"));
                key.boolean(song % 2 == 0);
                key.instant(i128::from(song) * 1_000_000_000);
            });
        }
    }
}

fn keys() -> Vec<(String, Vec<u8>)> {
    let mut keys = Keys::default();
    keys.others();
    keys.integers();
    keys.numbers();
    keys.texts();
    keys.times();
    keys.composites();
    keys.0
}

fn groups(bytes: &[u8]) -> (u16, u16) {
    (KeyGroup::of(bytes, KEY_GROUPS_DEFAULT).0, KeyGroup::of(bytes, GROUPS_MAX).0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Columns: group of 720, group of 65,535, canonical bytes, what the key is.
#[test]
fn canonical_keys_and_their_groups_are_golden() {
    let keys = keys();
    assert_eq!(keys.len(), KEYS, "the last keys fill the list up");
    let line = |(name, bytes): &(String, Vec<u8>)| {
        let (few, many) = groups(bytes);
        format!("{few}\t{many}\t{}\t{name}\n", hex(bytes))
    };
    let kept = golden("key-groups-1.tsv", &keys.iter().map(line).collect::<String>());
    for line in kept.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [few, many, bytes, name] = columns[..] else { panic!("four columns: {line}") };
        assert_eq!(groups(&bytes_of(bytes)), (few.parse::<u16>().unwrap(), many.parse::<u16>().unwrap()), "{name}");
    }
}
