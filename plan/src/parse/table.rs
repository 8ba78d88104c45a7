//! `CREATE TABLE name (columns, WATERMARK, PRIMARY KEY) WITH (options)`.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::FlinkParser;
use crate::PlanError;

/// A declared table.
#[derive(Debug)]
pub(crate) struct CreateTable {
    pub(crate) name: Ident,
    pub(crate) columns: Vec<ColumnDef>,
    pub(crate) watermark: Option<(Ident, Expr)>,
    /// `PRIMARY KEY (..) NOT ENFORCED`: what results that change are found by.
    pub(crate) primary_key: Vec<Ident>,
    pub(crate) options: BTreeMap<String, String>,
}

/// One declared column.
#[derive(Debug)]
pub(crate) struct ColumnDef {
    pub(crate) name: Ident,
    pub(crate) kind: ColumnKind,
}

/// Where a column's value comes from.
#[derive(Debug)]
pub(crate) enum ColumnKind {
    Physical { data_type: DataType, nullable: bool },
    Computed(Box<Expr>),
}

impl FlinkParser<'_> {
    pub(super) fn create_table(&mut self) -> Result<CreateTable, PlanError> {
        self.if_not_exists()?;
        let name = self.ident()?;
        self.expect(&Token::LParen)?;
        let mut table =
            CreateTable { name, columns: Vec::new(), watermark: None, primary_key: Vec::new(), options: BTreeMap::new() };
        loop {
            self.element(&mut table)?;
            if self.parser.consume_token(&Token::RParen) {
                break;
            }
            if !self.parser.consume_token(&Token::Comma) {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        if self.word("COMMENT") {
            self.string("a quoted comment")?;
        }
        if self.peek_word("PARTITIONED") || self.peek_word("DISTRIBUTED") {
            return Err(self.unexpected("WITH").hint("partitioned tables are not supported: leave the clause out"));
        }
        if self.peek_word("LIKE") || self.peek_word("AS") {
            return Err(self.unexpected("WITH").hint("declare the columns; CREATE TABLE LIKE and AS are not supported"));
        }
        self.expect_word("WITH")?;
        table.options = self.options()?;
        Ok(table)
    }

    fn element(&mut self, table: &mut CreateTable) -> Result<(), PlanError> {
        if self.word("WATERMARK") {
            self.expect_word("FOR")?;
            let column = self.ident()?;
            self.expect_word("AS")?;
            let expr = self.expr()?;
            if table.watermark.is_some() {
                let error = PlanError::new(format!("table {} has two watermarks", table.name.value)).at_ident(&column);
                return Err(error.hint("keep the one on the column that windows use; read the other time as a plain column"));
            }
            table.watermark = Some((column, expr));
        } else if self.peek_word("PRIMARY") || self.word("CONSTRAINT") {
            if !self.peek_word("PRIMARY") {
                self.ident()?;
            }
            self.primary_key()?;
            self.expect(&Token::LParen)?;
            table.primary_key = self.ident_list()?;
            self.not_enforced()?;
        } else {
            let name = self.ident()?;
            let computed = self.word("AS");
            let kind = if computed { ColumnKind::Computed(Box::new(self.expr()?)) } else { self.physical(&name, table)? };
            if self.word("COMMENT") {
                self.string("a quoted comment")?;
            }
            table.columns.push(ColumnDef { name, kind });
        }
        Ok(())
    }

    fn physical(&mut self, name: &Ident, table: &mut CreateTable) -> Result<ColumnKind, PlanError> {
        let data_type = self.data_type()?;
        if self.peek_word("METADATA") {
            return Err(self.unexpected("',' or ')'").hint("metadata columns are not supported"));
        }
        let mut nullable = true;
        loop {
            if self.word("NOT") {
                self.expect_word("NULL")?;
                nullable = false;
            } else if self.peek_word("PRIMARY") {
                self.primary_key()?;
                self.not_enforced()?;
                table.primary_key = vec![name.clone()];
            } else if !self.word("NULL") {
                return Ok(ColumnKind::Physical { data_type, nullable });
            }
        }
    }

    fn primary_key(&mut self) -> Result<(), PlanError> {
        self.expect_word("PRIMARY")?;
        self.expect_word("KEY")
    }

    fn not_enforced(&mut self) -> Result<(), PlanError> {
        if !self.peek_word("NOT") {
            return Err(self
                .unexpected("NOT ENFORCED")
                .hint("a stream's key cannot be enforced: write PRIMARY KEY (..) NOT ENFORCED"));
        }
        self.expect_word("NOT")?;
        self.expect_word("ENFORCED")
    }

    fn expr(&mut self) -> Result<Expr, PlanError> {
        self.parser.parse_expr().map_err(|error| PlanError::from_parser(&error))
    }
}
