//! `EMIT ON WINDOW CLOSE`, the default, and `EMIT EVERY interval` at the end of an INSERT: when a window's results are given.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{EmitEvery, FlinkParser};
use crate::PlanError;

/// Whether the word that was taken last is the EMIT of such a clause, and no table's alias.
pub(super) fn was_taken(parser: &Parser<'_>) -> bool {
    let [first, second] = parser.peek_tokens();
    let follows = is_word(&first, "EVERY") || is_word(&first, "ON") && is_word(&second, "WINDOW");
    follows && is_word(&parser.get_current_token().token, "EMIT")
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

impl FlinkParser<'_> {
    /// The clause, if there is one and it asks for early results.
    pub(super) fn emit(&mut self) -> Result<Option<EmitEvery>, PlanError> {
        if !self.word("EMIT") {
            return Ok(None);
        }
        if self.word("ON") {
            self.expect_word("WINDOW")?;
            self.expect_word("CLOSE")?;
            return Ok(None);
        }
        if !self.word("EVERY") {
            let hint = "write EMIT EVERY INTERVAL '1' SECOND, or EMIT ON WINDOW CLOSE, which is the default";
            return Err(self.unexpected("EVERY or ON WINDOW CLOSE").hint(hint));
        }
        let at = self.parser.peek_token().span.start;
        let interval = self.parser.parse_expr().map_err(|error| PlanError::from_parser(&error))?;
        Ok(Some(EmitEvery { interval, at }))
    }
}
