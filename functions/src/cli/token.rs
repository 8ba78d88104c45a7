//! The token of a server, as its two ends are given it.

use std::path::Path;

use anyhow::Context as _;
use weir_ingest::server::Token;

/// The token in `file`, else in WEIR_TOKEN; `None` if neither is there.
pub(super) fn token(file: Option<&Path>) -> anyhow::Result<Option<Token>> {
    let text = match file {
        Some(file) => Some(std::fs::read_to_string(file).with_context(|| format!("token file {}", file.display()))?),
        None => std::env::var("WEIR_TOKEN").ok(),
    };
    Ok(text.map(|text| Token::parse(&text)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_token_file_is_an_error_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "\n").unwrap();
        assert!(token(Some(&file)).unwrap_err().to_string().contains("empty"));
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(token(Some(&file)).unwrap().unwrap().reveal(), "secret");
        let missing = format!("{:#}", token(Some(&folder.path().join("nowhere"))).unwrap_err());
        assert!(missing.contains("nowhere"), "{missing}");
    }
}
