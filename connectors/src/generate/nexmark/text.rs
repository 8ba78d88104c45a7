//! Random texts, as pure functions of (seed, row, field).

use crate::generate::random::{below, bits};

/// One of `choices`.
pub(super) fn pick<'a>(choices: &[&'a str], seed: u64, row: u64, field: u64) -> &'a str {
    let index = below(seed, row, field, choices.len() as u64);
    choices[usize::try_from(index).unwrap_or(0)]
}

/// Lower-case letters, twelve from each draw: of `field`, `field + 1,000`, and so on.
pub(super) fn letters(seed: u64, row: u64, field: u64, count: u64, text: &mut Vec<u8>) {
    let mut left = count;
    let mut draw_number = 0;
    while left > 0 {
        let mut draw = bits(seed, row, field + 1_000 * draw_number);
        for _ in 0..left.min(12) {
            text.push(b'a' + u8::try_from(draw % 26).unwrap_or(0));
            draw /= 26;
        }
        left -= left.min(12);
        draw_number += 1;
    }
}

/// `average` letters, give or take a fifth: their count from `field`, the letters from `field + 1`.
pub(super) fn padding(seed: u64, row: u64, field: u64, average: u64, text: &mut Vec<u8>) {
    let spread = average / 5;
    let count = average - spread + below(seed, row, field, 2 * spread + 1);
    letters(seed, row, field + 1, count, text);
}

/// `places` decimal digits of `number`, with leading zeros.
pub(super) fn digits(number: u64, places: u32, text: &mut Vec<u8>) {
    for place in (0..places).rev() {
        text.push(b'0' + u8::try_from(number / 10u64.pow(place) % 10).unwrap_or(0));
    }
}
