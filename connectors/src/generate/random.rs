//! Randomness by counting: the value of (seed, row, field) needs no state, so rows can be made in any order.

/// 64 well-mixed bits of a row's field (SplitMix64's finaliser over a Weyl sequence).
#[must_use]
pub(crate) const fn bits(seed: u64, row: u64, field: u64) -> u64 {
    let mut z = seed ^ row.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(field.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `bound` (above 0).
#[must_use]
pub(crate) const fn below(seed: u64, row: u64, field: u64, bound: u64) -> u64 {
    ((bits(seed, row, field) as u128 * bound as u128) >> 64) as u64
}
