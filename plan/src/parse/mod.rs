//! The script's statements: Flink's own DDL around the SQL that sqlparser knows.
//!
//! The parser drives `sqlparser` the way an engine's own dialect does: its tokens, its queries and expressions, our statements.

mod depth;
mod emit;
mod table;
mod types;

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

pub(crate) use table::{ColumnKind, CreateTable};
pub(crate) use types::unit_of_precision;

use crate::PlanError;

/// Nesting of parentheses and operators past which a query is refused instead of overflowing the stack.
const DEPTH_MAX: usize = 64;

/// One statement.
#[derive(Debug)]
pub(crate) enum Statement {
    CreateTable(Box<CreateTable>),
    CreateView { name: Ident, columns: Vec<Ident>, query: Box<Query> },
    Set { key: String, value: String, at: Location },
    Insert(Box<Insert>),
}

/// `INSERT INTO table [(columns)] query [EMIT ..]`.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) table: Ident,
    pub(crate) columns: Vec<Ident>,
    pub(crate) query: Box<Query>,
    pub(crate) early: Option<EmitEvery>,
}

/// `EMIT EVERY interval`.
#[derive(Debug)]
pub(crate) struct EmitEvery {
    pub(crate) interval: Expr,
    pub(crate) at: Location,
}

/// Parses a whole script.
pub(crate) fn script(sql: &str) -> Result<Vec<Statement>, PlanError> {
    let dialect = FlinkDialect;
    let tokens = tokens(&dialect, sql)?;
    depth::check(&tokens)?;
    let parser = Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    FlinkParser { parser }.script()
}

/// The text's tokens: `>>` as two, since it only ever closes two types, and no double-quoted text, which Flink does not have.
fn tokens(dialect: &FlinkDialect, sql: &str) -> Result<Vec<TokenWithSpan>, PlanError> {
    let found = Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|error| PlanError::new(error.message).at(error.location.line, error.location.column))?;
    let mut tokens = Vec::with_capacity(found.len());
    for token in found {
        let start = token.span.start;
        match token.token {
            Token::ShiftRight => {
                let middle = Location::new(start.line, start.column + 1);
                tokens.push(TokenWithSpan::new(Token::Gt, Span::new(start, middle)));
                tokens.push(TokenWithSpan::new(Token::Gt, Span::new(middle, token.span.end)));
            }
            Token::DoubleQuotedString(text) => {
                return Err(PlanError::new(format!("text in double quotes: \"{text}\""))
                    .hint(format!("write '{text}' for text, `{text}` for a name"))
                    .at(start.line, start.column));
            }
            _ => tokens.push(token),
        }
    }
    Ok(tokens)
}

/// sqlparser's tokens with Flink's back-quotes and `TABLE t` as a function argument.
#[derive(Debug)]
struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn is_table_factor_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        explicit || !emit::was_taken(parser) && self.is_table_alias(kw, parser)
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let [first, second] = parser.peek_tokens();
        let is_table = matches!(&first, Token::Word(word) if word.keyword == Keyword::TABLE);
        if !is_table || !matches!(second, Token::Word(_)) {
            return None;
        }
        parser.next_token();
        Some(parser.parse_identifier().map(Expr::Identifier))
    }
}

struct FlinkParser<'a> {
    parser: Parser<'a>,
}

impl FlinkParser<'_> {
    fn script(&mut self) -> Result<Vec<Statement>, PlanError> {
        let mut statements = Vec::new();
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            if self.parser.peek_token().token == Token::EOF {
                return Ok(statements);
            }
            self.statement(&mut statements)?;
        }
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) -> Result<(), PlanError> {
        if self.word("CREATE") {
            statements.push(self.create()?);
        } else if self.word("SET") {
            statements.push(self.set()?);
        } else if self.word("INSERT") {
            statements.push(self.insert()?);
        } else if self.word("BEGIN") || self.word("EXECUTE") {
            self.expect_word("STATEMENT")?;
            self.expect_word("SET")?;
            self.statement_set(statements)?;
        } else {
            return Err(self.unknown_statement());
        }
        self.end_of_statement()
    }

    fn unknown_statement(&self) -> PlanError {
        let hint = match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.value.eq_ignore_ascii_case("EXPLAIN") => {
                "leave EXPLAIN out and run `weir explain` on the script: it shows every INSERT"
            }
            Token::Word(word) if matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES) => {
                "a query needs a sink: INSERT INTO sink SELECT ..; for a look at rows use 'connector' = 'print'"
            }
            _ => "a job is made of CREATE TABLE, CREATE VIEW, SET, INSERT INTO and STATEMENT SET",
        };
        self.unexpected("a statement").hint(hint)
    }

    fn statement_set(&mut self, statements: &mut Vec<Statement>) -> Result<(), PlanError> {
        self.word("BEGIN");
        while self.parser.consume_token(&Token::SemiColon) {}
        while !self.word("END") {
            self.expect_word("INSERT")?;
            statements.push(self.insert()?);
            self.end_of_statement()?;
            while self.parser.consume_token(&Token::SemiColon) {}
        }
        Ok(())
    }

    fn create(&mut self) -> Result<Statement, PlanError> {
        let _ = self.word("TEMPORARY");
        if self.word("TABLE") {
            return self.create_table().map(|table| Statement::CreateTable(Box::new(table)));
        }
        if !self.word("VIEW") {
            return Err(self.unexpected("TABLE or VIEW").hint("functions, catalogs and databases cannot be created yet"));
        }
        self.if_not_exists()?;
        let name = self.ident()?;
        let mut columns = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            columns = self.ident_list()?;
        }
        self.expect_word("AS")?;
        Ok(Statement::CreateView { name, columns, query: self.query()? })
    }

    fn set(&mut self) -> Result<Statement, PlanError> {
        let at = self.parser.peek_token().span.start;
        let key = self.string("a quoted key, as SET 'parallelism.default' = '2'")?;
        self.expect(&Token::Eq)?;
        let value = self.string("a quoted value")?;
        Ok(Statement::Set { key, value, at })
    }

    fn insert(&mut self) -> Result<Statement, PlanError> {
        if self.word("OVERWRITE") {
            return Err(self.unexpected("INTO").hint("a stream is appended to: write INSERT INTO"));
        }
        self.expect_word("INTO")?;
        let table = self.ident()?;
        let mut columns = Vec::new();
        if self.parser.peek_token().token == Token::LParen && !self.query_follows() {
            self.parser.next_token();
            columns = self.ident_list()?;
        }
        Ok(Statement::Insert(Box::new(Insert { table, columns, query: self.query()?, early: self.emit()? })))
    }

    fn query_follows(&self) -> bool {
        let [_, second] = self.parser.peek_tokens();
        matches!(second, Token::Word(word) if matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES))
    }

    fn query(&mut self) -> Result<Box<Query>, PlanError> {
        self.parser.parse_query().map_err(|error| PlanError::from_parser(&error))
    }

    /// `'key' = 'value', ..` with the opening parenthesis still to come.
    fn options(&mut self) -> Result<BTreeMap<String, String>, PlanError> {
        let mut options = BTreeMap::new();
        self.expect(&Token::LParen)?;
        while !self.parser.consume_token(&Token::RParen) {
            let at = self.parser.peek_token().span.start;
            let key = self.string("a quoted option, as 'connector' = 'filesystem'")?;
            self.expect(&Token::Eq)?;
            let value = self.string("a quoted value")?;
            if options.insert(key.clone(), value).is_some() {
                let error = PlanError::new(format!("option '{key}' is given twice")).at(at.line, at.column);
                return Err(error.hint("keep one of them"));
            }
            if !self.parser.consume_token(&Token::Comma) && self.parser.peek_token().token != Token::RParen {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(options)
    }

    fn ident_list(&mut self) -> Result<Vec<Ident>, PlanError> {
        let mut names = vec![self.ident()?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.ident()?);
        }
        self.expect(&Token::RParen)?;
        Ok(names)
    }

    fn if_not_exists(&mut self) -> Result<(), PlanError> {
        if self.word("IF") {
            self.expect_word("NOT")?;
            self.expect_word("EXISTS")?;
        }
        Ok(())
    }

    /// Takes the next token if it is this word, in any case and not quoted.
    fn word(&mut self, wanted: &str) -> bool {
        let matches = self.peek_word(wanted);
        if matches {
            self.parser.next_token();
        }
        matches
    }

    fn peek_word(&self, wanted: &str) -> bool {
        matches!(&self.parser.peek_token_ref().token,
            Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
    }

    fn expect_word(&mut self, wanted: &str) -> Result<(), PlanError> {
        if self.word(wanted) { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), PlanError> {
        if self.parser.consume_token(wanted) { Ok(()) } else { Err(self.unexpected(&format!("'{wanted}'"))) }
    }

    fn ident(&mut self) -> Result<Ident, PlanError> {
        match self.parser.peek_token().token {
            Token::Word(_) => self.parser.parse_identifier().map_err(|error| PlanError::from_parser(&error)),
            _ => Err(self.unexpected("a name")),
        }
    }

    fn string(&mut self, what: &str) -> Result<String, PlanError> {
        match self.parser.peek_token().token {
            Token::SingleQuotedString(text) => {
                self.parser.next_token();
                Ok(text)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    fn end_of_statement(&mut self) -> Result<(), PlanError> {
        match self.parser.peek_token().token {
            Token::SemiColon | Token::EOF => Ok(()),
            _ => Err(self.unexpected("';' or the end of the statement")),
        }
    }

    fn unexpected(&self, expected: &str) -> PlanError {
        let found = self.parser.peek_token();
        let shown =
            if found.token == Token::EOF { "the end of the text".to_owned() } else { format!("{:?}", found.token.to_string()) };
        PlanError::new(format!("expected {expected}, found {shown}")).at(found.span.start.line, found.span.start.column)
    }
}
