//! Declared columns against those that a table has.

use arrow::datatypes::{DataType, Field, Fields};

use super::Table;
use super::event::{EVENT_TYPE, Kind};
use crate::options::{OptionsError, TableOptions};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// BIGINT.
    Number,
    /// STRING.
    Text,
    /// TIMESTAMP(3).
    Time,
}

impl Holds {
    fn fits(self, declared: &DataType) -> bool {
        match self {
            Self::Number => declared.is_integer() || declared.is_floating() || matches!(declared, DataType::Decimal128(..)),
            Self::Text => matches!(declared, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            Self::Time => matches!(declared, DataType::Timestamp(..) | DataType::Int64),
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Number => "BIGINT or another type of numbers",
            Self::Text => "STRING",
            Self::Time => "TIMESTAMP(3) or another type of timestamps",
        }
    }
}

/// Refuses columns, and fields of ROWs, that the table does not have or that cannot hold its values.
pub(super) fn check(options: TableOptions<'_>, table: Table, columns: &Fields) -> Result<(), OptionsError> {
    columns.iter().try_for_each(|column| match table {
        Table::Events => check_event_column(options, column),
        Table::Flat(kind) => check_field(options, kind, column.name(), column),
    })
}

fn check_event_column(options: TableOptions<'_>, column: &Field) -> Result<(), OptionsError> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == column.name());
    match (kind, column.data_type()) {
        (Some(kind), DataType::Struct(fields)) => {
            fields.iter().try_for_each(|field| check_field(options, kind, &format!("{}.{}", column.name(), field.name()), field))
        }
        (Some(kind), declared) => Err(options.error(format!(
            "column {0} cannot be {declared}: declare it as ROW<..> of {1} fields, or set 'nexmark.table' for a flat table",
            column.name(),
            whose(kind)
        ))),
        (None, declared) if column.name() == EVENT_TYPE => check_type(options, EVENT_TYPE, Holds::Number, declared),
        (None, _) => Err(options.error(format!(
            "column {} is not one of an event's: {EVENT_TYPE}, person, auction, bid; \
             for a flat table set 'nexmark.table' to 'person', 'auction' or 'bid'",
            column.name()
        ))),
    }
}

/// - `place`: the field's name, or `column.field`.
fn check_field(options: TableOptions<'_>, kind: Kind, place: &str, field: &Field) -> Result<(), OptionsError> {
    let Some((_, holds)) = kind.fields().iter().find(|(name, _)| field.name().as_str() == *name) else {
        let known: Vec<&str> = kind.fields().iter().map(|(name, _)| *name).collect();
        return Err(options.error(format!("column {place} is not one of {}: {}", whose(kind), known.join(", "))));
    };
    check_type(options, place, *holds, field.data_type())
}

fn check_type(options: TableOptions<'_>, place: &str, holds: Holds, declared: &DataType) -> Result<(), OptionsError> {
    if holds.fits(declared) {
        return Ok(());
    }
    Err(options.error(format!("column {place} cannot be {declared}: declare it as {}", holds.remedy())))
}

const fn whose(kind: Kind) -> &'static str {
    match kind {
        Kind::Person => "a person's",
        Kind::Auction => "an auction's",
        Kind::Bid => "a bid's",
    }
}
