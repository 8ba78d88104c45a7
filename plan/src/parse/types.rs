//! Flink's column types as Arrow types.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::FlinkParser;
use crate::PlanError;

const NAMES: [&str; 24] = [
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
    "ARRAY",
    "MAP",
];

/// Unit that holds `digits` of a second; `None` past 9.
pub(crate) fn unit_of_precision(digits: u64) -> Option<TimeUnit> {
    match digits {
        0 => Some(TimeUnit::Second),
        1..=3 => Some(TimeUnit::Millisecond),
        4..=6 => Some(TimeUnit::Microsecond),
        7..=9 => Some(TimeUnit::Nanosecond),
        _ => None,
    }
}

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
                let item = self.item()?;
                self.expect(&Token::Gt)?;
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            }
            "MAP" => self.map()?,
            _ => {
                let error = PlanError::new(format!("unknown type {}", word.value));
                let supported = format!("supported: {}", NAMES.join(", "));
                return Err(error.did_you_mean(&name, NAMES, &supported).at(place.span.start.line, place.span.start.column));
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
        let digits = self.number_in_parentheses()?.unwrap_or(6);
        unit_of_precision(digits).ok_or_else(|| {
            PlanError::new(format!("TIMESTAMP({digits}) is out of range")).hint("0 to 9 digits").at(place.line, place.column)
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
            let data_type = self.item()?;
            if let Token::SingleQuotedString(_) = self.parser.peek_token_ref().token {
                self.parser.next_token();
            }
            fields.push(Field::new(name.value, data_type, true));
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(if angle { &Token::Gt } else { &Token::RParen })?;
        Ok(DataType::Struct(Fields::from(fields)))
    }

    /// Arrow's maps: entries of a key that is never null and a value.
    fn map(&mut self) -> Result<DataType, PlanError> {
        self.expect(&Token::Lt)?;
        let key = self.item()?;
        self.expect(&Token::Comma)?;
        let value = self.item()?;
        self.expect(&Token::Gt)?;
        let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
        Ok(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false))
    }

    /// A type inside another: every value of it may be NULL, whatever NOT NULL says, since decoders cannot promise it.
    fn item(&mut self) -> Result<DataType, PlanError> {
        let data_type = self.data_type()?;
        if self.word("NOT") {
            self.expect_word("NULL")?;
        } else {
            let _ = self.word("NULL");
        }
        Ok(data_type)
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
