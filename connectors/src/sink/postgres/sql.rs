//! The statements, and how columns are named and typed in them.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, SchemaRef};

/// Table of the last step applied, by job and publisher.
pub(super) const PROGRESS: &str = "weir_progress";

/// Times are UTC. A process that stopped in a transaction must not hold up its successor, nor a lock of others this one for ever.
pub(super) const SESSION: &str = "SET TIME ZONE 'UTC'; SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '30s'";

/// Whether the tables of these names are there.
pub(super) const TABLES_THERE: &str = "SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL";

/// Columns of a table and their types, without lengths: a cast to those would cut what does not fit, where an assignment refuses it.
pub(super) const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute \
     WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

pub(super) const FIRST_STEP: &str = "INSERT INTO weir_progress VALUES ($1, $2, -1) ON CONFLICT DO NOTHING";
pub(super) const LOCK_STEP: &str = "SELECT step FROM weir_progress WHERE job = $1 AND shard = $2 FOR UPDATE";
pub(super) const SET_STEP: &str = "UPDATE weir_progress SET step = $3 WHERE job = $1 AND shard = $2";

pub(super) fn create_progress() -> String {
    format!("CREATE TABLE IF NOT EXISTS {PROGRESS} (job text, shard text, step bigint NOT NULL, PRIMARY KEY (job, shard))")
}

pub(super) fn create_table(table: &str, columns: &SchemaRef, key: &[usize]) -> String {
    let declared = |field: &Field| {
        let constraint = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{constraint}", identifier(field.name()), declared_type(field).unwrap_or_default())
    };
    let mut parts: Vec<String> = columns.fields().iter().map(|field| declared(field)).collect();
    if !key.is_empty() {
        // A group may be that of NULL, which a primary key refuses.
        let nullable = key.iter().any(|place| columns.field(*place).is_nullable());
        let constraint = if nullable { "UNIQUE" } else { "PRIMARY KEY" };
        parts.push(format!("{constraint} ({})", names(columns, key).join(", ")));
    }
    format!("CREATE TABLE IF NOT EXISTS {} ({})", quoted(table), parts.join(", "))
}

/// A name as it is written; schema and table are quoted each.
pub(super) fn quoted(table: &str) -> String {
    table.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn names(columns: &SchemaRef, places: &[usize]) -> Vec<String> {
    places.iter().map(|place| identifier(columns.field(*place).name())).collect()
}

/// Type of a column in a table that we make.
///
/// # Errors
/// A message that names a column of a type that there is not.
pub(super) fn declared_type(field: &Field) -> Result<String, String> {
    Ok(match field.data_type() {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision}, {scale})"),
        other => {
            return Err(format!(
                "column {} is {other}, which the jdbc connector cannot write: project its fields, or CAST it to STRING",
                field.name()
            ));
        }
    })
}

/// Statements for one table, each taking an array of texts for each of its columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statements {
    /// Takes all columns.
    pub(super) write: String,
    /// Takes the key's columns.
    pub(super) delete: Option<String>,
}

impl Statements {
    /// - `types`: of the columns that the table has.
    ///
    /// # Errors
    /// A message that names a column that the table has not.
    pub(super) fn new(table: &str, columns: &SchemaRef, key: &[usize], types: &BTreeMap<String, String>) -> Result<Self, String> {
        let all: Vec<usize> = (0..columns.fields().len()).collect();
        let typed = |place: &usize| {
            let name = columns.field(*place).name();
            types.get(name).ok_or_else(|| {
                let known: Vec<&str> = types.keys().map(String::as_str).collect();
                format!("the table has no column {name}, only {}", known.join(", "))
            })
        };
        let cast = all.iter().map(|place| Ok(format!("c{place}::{}", typed(place)?))).collect::<Result<Vec<_>, String>>()?;
        let own = names(columns, &all);
        let mut write = format!(
            "INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS given ({})",
            quoted(table),
            own.join(", "),
            cast.join(", "),
            parameters(all.len()),
            given(&all)
        );
        if key.is_empty() {
            return Ok(Self { write, delete: None });
        }
        let set: Vec<String> =
            (all.iter().filter(|place| !key.contains(place))).map(|place| format!("{0} = EXCLUDED.{0}", own[*place])).collect();
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        write.push_str(&format!(" ON CONFLICT ({}) DO {action}", names(columns, key).join(", ")));
        let same: Vec<String> = (key.iter())
            .map(|place| Ok(format!("kept.{} IS NOT DISTINCT FROM given.c{place}::{}", own[*place], typed(place)?)))
            .collect::<Result<_, String>>()?;
        let delete = format!(
            "DELETE FROM {} AS kept USING unnest({}) AS given ({}) WHERE {}",
            quoted(table),
            parameters(key.len()),
            given(key),
            same.join(" AND ")
        );
        Ok(Self { write, delete: Some(delete) })
    }
}

fn parameters(count: usize) -> String {
    (1..=count).map(|number| format!("${number}::text[]")).collect::<Vec<_>>().join(", ")
}

fn given(places: &[usize]) -> String {
    places.iter().map(|place| format!("c{place}")).collect::<Vec<_>>().join(", ")
}
