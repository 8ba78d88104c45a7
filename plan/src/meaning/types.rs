//! Flink's types in casts and literals; without this the engine would read a bare TIMESTAMP as nanoseconds and a bare DECIMAL as
//! DECIMAL(38, 10).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo};

use crate::PlanError;
use crate::parse::unit_of_precision;

/// Plans types as `CREATE TABLE` declares them.
#[derive(Debug)]
pub(crate) struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let planned = planned(sql_type).map_err(PlanError::into_engine)?;
        Ok(planned.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}

fn planned(sql_type: &SqlType) -> Result<Option<DataType>, PlanError> {
    Ok(Some(match sql_type {
        SqlType::Timestamp(digits, zone) => {
            let unit = unit_of_precision(digits.unwrap_or(6))
                .ok_or_else(|| PlanError::new(format!("{sql_type} is out of range")).hint("0 to 9 digits"))?;
            let zone = matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz).then(|| Arc::from("+00:00"));
            DataType::Timestamp(unit, zone)
        }
        SqlType::Decimal(ExactNumberInfo::None)
        | SqlType::Numeric(ExactNumberInfo::None)
        | SqlType::Dec(ExactNumberInfo::None) => DataType::Decimal128(10, 0),
        SqlType::Char(Some(_)) | SqlType::Varchar(Some(_)) | SqlType::Character(Some(_)) => {
            return Err(PlanError::new(format!("a cast to {sql_type} would have to cut the text"))
                .hint("write CAST(x AS STRING), or SUBSTRING(x, 1, length)"));
        }
        SqlType::Bytes(None) => DataType::Binary,
        SqlType::Custom(name, digits) if name.to_string().eq_ignore_ascii_case("TIMESTAMP_LTZ") => {
            let digits = digits.first().map_or(Ok(6), |digits| digits.parse()).ok();
            let unit = digits.and_then(unit_of_precision);
            let unit = unit.ok_or_else(|| PlanError::new(format!("{sql_type} is out of range")).hint("0 to 9 digits"))?;
            DataType::Timestamp(unit, Some(Arc::from("+00:00")))
        }
        SqlType::Boolean
        | SqlType::TinyInt(None)
        | SqlType::SmallInt(None)
        | SqlType::Int(None)
        | SqlType::Integer(None)
        | SqlType::BigInt(None)
        | SqlType::Float(ExactNumberInfo::None)
        | SqlType::Real
        | SqlType::Double(ExactNumberInfo::None)
        | SqlType::DoublePrecision
        | SqlType::Decimal(_)
        | SqlType::Numeric(_)
        | SqlType::Dec(_)
        | SqlType::String(None)
        | SqlType::Varchar(None)
        | SqlType::Char(None)
        | SqlType::Date => return Ok(None),
        other => {
            return Err(PlanError::new(format!("a cast to {other} is not supported")).hint(
                "supported: BOOLEAN, the integers, FLOAT, DOUBLE, DECIMAL, STRING, BYTES, DATE, TIMESTAMP, TIMESTAMP_LTZ",
            ));
        }
    }))
}
