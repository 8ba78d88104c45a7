//! Changelogs: what happened to each row of a result that does not only grow.

/// How the results of a pipeline relate to those it gave before.
///
/// Rows that change have a first column [`OP_COLUMN`] before the sink's: what happened to the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// They are only added to.
    Append,
    /// The last result of a key counts.
    Upsert {
        /// Places of the key's columns among the sink's.
        key: Vec<usize>,
    },
    /// A result is taken back, whole, before another takes its place.
    Retract,
}

impl Changes {
    /// Whether rows say what happened to them.
    #[must_use]
    pub const fn has_op(&self) -> bool {
        !matches!(self, Self::Append)
    }
}

/// Name of the column that says what happened to a row, an [`Op`].
pub const OP_COLUMN: &str = "__op";

/// What happened to a row; the numbers are Flink's row kinds, and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Op {
    /// A key's first result.
    Insert = 0,
    /// A result that is taken back because another follows.
    UpdateBefore = 1,
    /// A result in the place of an earlier one.
    UpdateAfter = 2,
    /// A result that is taken back for good.
    Delete = 3,
}

impl Op {
    /// All, by number.
    pub const ALL: [Self; 4] = [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Delete];

    /// As changelogs write it.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }
}
