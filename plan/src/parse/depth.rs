//! A bound on nesting, judged on the tokens: a chain such as `a + a + ..` nests without a parenthesis, and the engine's rewrites
//! recurse on it.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::PlanError;
use crate::error::too_deep;

/// Tokens between two commas, summed over the enclosing parentheses. A tree's depth is at most half of it.
const TOKENS_MAX: usize = 512;

/// Refuses a text whose expressions could nest too deeply.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), PlanError> {
    let mut enclosing: Vec<usize> = Vec::new();
    let (mut here, mut outside) = (0, 0);
    for token in tokens {
        match token.token {
            Token::Whitespace(_) => {}
            Token::SemiColon => {
                enclosing.clear();
                (here, outside) = (0, 0);
            }
            Token::Comma => here = 0,
            Token::LParen | Token::LBracket => {
                enclosing.push(here);
                outside += here + 1;
                here = 0;
            }
            Token::RParen | Token::RBracket => {
                // What the parentheses held lies beside what follows, not around it.
                here = enclosing.pop().unwrap_or(0) + 1;
                outside = outside.saturating_sub(here);
            }
            _ => here += 1,
        }
        if here + outside > TOKENS_MAX {
            return Err(too_deep().at(token.span.start.line, token.span.start.column));
        }
    }
    Ok(())
}
