//! Where records begin and end in a block of text.
//!
//! Quotes count as the CSV decoder counts them: one opens a value only at its very start, a doubled one inside is a character. So a
//! stray quote in the middle of a value (`5" pipe`) never swallows the lines after it.

use std::ops::Range;

/// What ends a record and what may hide its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Every line end ends a record.
    Lines,
    /// A line end inside a quoted value belongs to it.
    Quoted {
        /// Quote character.
        quote: u8,
        /// Character between values.
        delimiter: u8,
    },
}

/// Records of `block`, without blank lines; each ends before its line end. A record without a line end is the last of its file.
#[must_use]
pub(crate) fn records(block: &[u8], framing: Framing) -> Vec<Range<usize>> {
    let mut found = Vec::with_capacity(block.len() / 64);
    let mut start = 0;
    let mut push = |start: usize, end: usize| {
        let end = if end > start && block[end - 1] == b'\r' { end - 1 } else { end };
        if !is_blank(&block[start..end]) {
            found.push(start..end);
        }
    };
    for_each_end(block, framing, |end| {
        push(start, end);
        start = end + 1;
    });
    if start < block.len() {
        push(start, block.len());
    }
    found
}

#[inline]
fn is_blank(record: &[u8]) -> bool {
    record.first().is_none_or(u8::is_ascii_whitespace) && record.trim_ascii().is_empty()
}

/// One past the last line end that ends a record of `block`, which begins with a record; `None` if there is none.
#[must_use]
pub(crate) fn last_end(block: &[u8], framing: Framing) -> Option<usize> {
    if plain(block, framing) {
        return memchr::memrchr(b'\n', block).map(|end| end + 1);
    }
    let mut last = None;
    for_each_end(block, framing, |end| last = Some(end + 1));
    last
}

/// One past the first line end that ends a record of `block`, which begins with a record.
#[must_use]
pub(crate) fn first_end(block: &[u8], framing: Framing) -> Option<usize> {
    let mut first = None;
    for_each_end(block, framing, |end| first = first.or(Some(end + 1)));
    first
}

/// Whether no line end of `block` can be hidden.
fn plain(block: &[u8], framing: Framing) -> bool {
    match framing {
        Framing::Lines => true,
        Framing::Quoted { quote, .. } => memchr::memchr(quote, block).is_none(),
    }
}

fn for_each_end(block: &[u8], framing: Framing, mut each: impl FnMut(usize)) {
    let (quote, delimiter) = match framing {
        Framing::Quoted { quote, delimiter } if !plain(block, framing) => (quote, delimiter),
        Framing::Lines | Framing::Quoted { .. } => return memchr::memchr_iter(b'\n', block).for_each(each),
    };
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'\n', quote, &block[at..]) {
        let place = at + found;
        at = place + 1;
        if block[place] == b'\n' {
            each(place);
        } else if opens(block, place, delimiter) {
            at = close(block, at, quote);
        }
    }
}

/// Whether a quote at `place` is the first character of a value.
fn opens(block: &[u8], place: usize, delimiter: u8) -> bool {
    place == 0 || block[place - 1] == delimiter || matches!(block[place - 1], b'\n' | b'\r')
}

/// One past the quote that closes the value whose inside begins at `at`; the block's end if none does.
fn close(block: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(found) = memchr::memchr(quote, &block[at..]) {
        at += found + 1;
        if block.get(at) != Some(&quote) {
            return at;
        }
        at += 1;
    }
    block.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTED: Framing = Framing::Quoted { quote: b'"', delimiter: b',' };

    fn texts(block: &str, framing: Framing) -> Vec<&str> {
        records(block.as_bytes(), framing).into_iter().map(|range| &block[range]).collect()
    }

    #[test]
    fn blank_lines_and_carriage_returns_are_no_records() {
        assert_eq!(texts("a\r\n\r\n  \nb\nc", Framing::Lines), ["a", "b", "c"]);
        assert!(texts("\n\n", Framing::Lines).is_empty());
    }

    #[test]
    fn a_quoted_line_end_belongs_to_its_record() {
        let block = "1,\"x\ny\"\n2,\"he said \"\"no\n\"\"\"\n3,z\n";
        assert_eq!(texts(block, QUOTED), ["1,\"x\ny\"", "2,\"he said \"\"no\n\"\"\"", "3,z"]);
        assert_eq!(last_end(b"1,\"x\ny", QUOTED), None);
        assert_eq!(last_end(b"1\n2", QUOTED), Some(2));
        assert_eq!(first_end(b"\"a\nb\"\nc\n", QUOTED), Some(6));
    }

    #[test]
    fn a_stray_quote_swallows_nothing() {
        assert_eq!(texts("1,5\" pipe\n2,x\n3,\"y\"z\n4,w\n", QUOTED), ["1,5\" pipe", "2,x", "3,\"y\"z", "4,w"]);
    }
}
