//! Who may send: the token that requests must bear, or nobody asks.
//!
//! Nobody is asked only where that was said, or where only this machine can send: a variable that was forgotten must not open a server.

use std::fmt;

use axum::http::{HeaderMap, header};

/// What requests must bear. Never empty, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty: write one, or leave out --token-file and WEIR_TOKEN")]
pub struct EmptyToken;

/// Settings that do not say who may send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither a token nor the word that none is wanted.
    #[error(
        "WEIR_TOKEN is not set: set what requests must bear, or WEIR_AUTH=iam if the function's URL lets only signed requests \
         through, or WEIR_AUTH=none to take rows from everybody"
    )]
    Unsaid,
    /// A token that is empty.
    #[error("WEIR_TOKEN is empty: write a token, or leave it out and say WEIR_AUTH=iam or WEIR_AUTH=none")]
    Empty,
    /// Two words at once: a signed request has no room for a token, and a token is not nothing.
    #[error("WEIR_TOKEN and WEIR_AUTH={0} exclude each other: leave out one of them")]
    Both(String),
    /// Another word.
    #[error("WEIR_AUTH={0} is not understood: write iam or none, or leave it out and set WEIR_TOKEN")]
    Unknown(String),
}

impl Token {
    /// The token in `text`, without the blanks around it.
    ///
    /// # Errors
    /// [`EmptyToken`].
    pub fn parse(text: &str) -> Result<Self, EmptyToken> {
        let text = text.trim();
        if text.is_empty() { Err(EmptyToken) } else { Ok(Self(text.to_owned())) }
    }

    /// Its text, for a client to send.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn is_borne_by(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        same(given.as_bytes(), self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0 && a.len() == b.len()
}

/// The token of a function, which cannot see who reaches it: `None` only where `auth` says so.
///
/// - `token`, `auth`: WEIR_TOKEN and WEIR_AUTH.
///
/// # Errors
/// [`AuthError`].
pub fn token_of_function(token: Option<&str>, auth: Option<&str>) -> Result<Option<Token>, AuthError> {
    match (token, auth.filter(|auth| !auth.is_empty())) {
        (Some(token), None) => Token::parse(token).map(Some).map_err(|EmptyToken| AuthError::Empty),
        (None, Some("iam" | "none")) => Ok(None),
        (None, None) => Err(AuthError::Unsaid),
        (Some(_), Some(auth @ ("iam" | "none"))) => Err(AuthError::Both(auth.to_owned())),
        (_, Some(auth)) => Err(AuthError::Unknown(auth.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_asks_nobody_only_where_that_was_said() {
        let token = |token, auth| token_of_function(token, auth).map(|token| token.map(|token| token.reveal().to_owned()));
        assert_eq!(token(Some(" secret\n"), None), Ok(Some("secret".to_owned())));
        assert_eq!((token(None, Some("iam")), token(None, Some("none"))), (Ok(None), Ok(None)));
        assert_eq!((token(None, None), token(None, Some(""))), (Err(AuthError::Unsaid), Err(AuthError::Unsaid)));
        assert_eq!((token(Some(""), None), token(Some(" "), None)), (Err(AuthError::Empty), Err(AuthError::Empty)));
        assert_eq!(token(Some("secret"), Some("iam")), Err(AuthError::Both("iam".to_owned())));
        assert_eq!(token(None, Some("off")), Err(AuthError::Unknown("off".to_owned())));
    }

    #[test]
    fn a_token_is_never_shown_and_only_itself_is_borne() {
        let secret = Token::parse("secret").unwrap();
        assert_eq!(format!("{secret:?}"), "Token(..)");
        for (value, borne) in [("Bearer secret", true), ("Bearer secre", false), ("Bearer ", false), ("secret", false)] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(secret.is_borne_by(&headers), borne, "{value}");
        }
        assert!(!secret.is_borne_by(&HeaderMap::new()));
    }
}
