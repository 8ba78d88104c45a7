//! Flink's column types as Arrow types.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::FlinkParser;
use crate::{PlanError, nearest};

const NAMES: [&str; 22] = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "DEC",
    "STRING",
    "VARCHAR",
    "CHAR",
    "BYTES",
    "BINARY",
    "VARBINARY",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "ROW",
];

impl FlinkParser<'_> {
    pub(super) fn data_type(&mut self) -> Result<DataType, PlanError> {
        let place = self.parser.peek_token();
        let Token::Word(word) = &place.token else { return Err(self.unexpected("a type")) };
        let name = word.value.to_uppercase();
        self.parser.next_token();
        Ok(match name.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" => DataType::Int8,
            "SMALLINT" => DataType::Int16,
            "INT" | "INTEGER" => DataType::Int32,
            "BIGINT" => DataType::Int64,
            "FLOAT" => DataType::Float32,
            "DOUBLE" => {
                let _ = self.word("PRECISION");
                DataType::Float64
            }
            "DECIMAL" | "NUMERIC" | "DEC" => self.decimal()?,
            "STRING" => DataType::Utf8,
            "VARCHAR" | "CHAR" => {
                self.number_in_parentheses()?;
                DataType::Utf8
            }
            "BYTES" => DataType::Binary,
            "BINARY" | "VARBINARY" => {
                self.number_in_parentheses()?;
                DataType::Binary
            }
            "DATE" => DataType::Date32,
            "TIME" => {
                self.number_in_parentheses()?;
                DataType::Time32(TimeUnit::Millisecond)
            }
            "TIMESTAMP" => self.timestamp()?,
            "TIMESTAMP_LTZ" => DataType::Timestamp(self.unit()?, Some(Arc::from("+00:00"))),
            "ROW" => self.row()?,
            "ARRAY" => {
                self.expect(&Token::Lt)?;
                let item = self.data_type()?;
                self.close_angle()?;
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            }
            _ => {
                let error =
                    PlanError::new(format!("unknown type {}", word.value)).at(place.span.start.line, place.span.start.column);
                return Err(match nearest(&name, NAMES) {
                    Some(known) => error.hint(format!("did you mean {known}?")),
                    None => error.hint("supported: BOOLEAN, the integers, FLOAT, DOUBLE, DECIMAL, STRING, BYTES, DATE, TIME, TIMESTAMP, TIMESTAMP_LTZ, ROW, ARRAY"),
                });
            }
        })
    }

    fn decimal(&mut self) -> Result<DataType, PlanError> {
        let (mut precision, mut scale) = (10, 0);
        if self.parser.consume_token(&Token::LParen) {
            precision = self.number()?;
            if self.parser.consume_token(&Token::Comma) {
                scale = self.number()?;
            }
            self.expect(&Token::RParen)?;
        }
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale >= 0 && u8::try_from(scale).is_ok_and(|s| s <= precision) => {
                Ok(DataType::Decimal128(precision, scale))
            }
            _ => Err(PlanError::new(format!("DECIMAL({precision}, {scale}) is out of range"))
                .hint("precision 1 to 38, scale 0 to precision")),
        }
    }

    fn timestamp(&mut self) -> Result<DataType, PlanError> {
        let unit = self.unit()?;
        let mut zone = None;
        if self.word("WITH") {
            self.expect_word("LOCAL")?;
            zone = Some(Arc::from("+00:00"));
            self.expect_word("TIME")?;
            self.expect_word("ZONE")?;
        } else if self.word("WITHOUT") {
            self.expect_word("TIME")?;
            self.expect_word("ZONE")?;
        }
        Ok(DataType::Timestamp(unit, zone))
    }

    /// Flink's default precision is 6.
    fn unit(&mut self) -> Result<TimeUnit, PlanError> {
        let place = self.parser.peek_token().span.start;
        Ok(match self.number_in_parentheses()?.unwrap_or(6) {
            0 => TimeUnit::Second,
            1..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            7..=9 => TimeUnit::Nanosecond,
            other => {
                return Err(PlanError::new(format!("TIMESTAMP({other}) is out of range"))
                    .hint("0 to 9 digits")
                    .at(place.line, place.column));
            }
        })
    }

    fn row(&mut self) -> Result<DataType, PlanError> {
        let angle = self.parser.consume_token(&Token::Lt);
        if !angle {
            self.expect(&Token::LParen)?;
        }
        let mut fields = Vec::new();
        loop {
            let name = self.ident()?;
            let data_type = self.data_type()?;
            if self.word("NOT") {
                self.expect_word("NULL")?;
            }
            fields.push(Field::new(name.value, data_type, true));
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if angle {
            self.close_angle()?
        } else {
            self.expect(&Token::RParen)?
        }
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn close_angle(&mut self) -> Result<(), PlanError> {
        if self.parser.peek_token().token == Token::ShiftRight {
            return Err(self.unexpected("'>'").hint("write '> >' with a space where two types end"));
        }
        self.expect(&Token::Gt)
    }

    fn number_in_parentheses(&mut self) -> Result<Option<u64>, PlanError> {
        if !self.parser.consume_token(&Token::LParen) {
            return Ok(None);
        }
        let number = self.number()?;
        self.expect(&Token::RParen)?;
        Ok(Some(number))
    }

    fn number(&mut self) -> Result<u64, PlanError> {
        match self.parser.peek_token().token {
            Token::Number(text, _) => {
                let error = self.unexpected("a whole number");
                self.parser.next_token();
                text.parse().map_err(|_| error)
            }
            _ => Err(self.unexpected("a whole number")),
        }
    }
}
