//! Where the objects of a JSON array begin and end: brackets and texts are followed, values are not looked at.

use std::ops::Range;

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 128;

/// The elements of the array `bytes`, or `bytes` as the only one if it is an object.
///
/// # Errors
/// What is wrong with the array around its elements, in words for the client.
pub(super) fn records(bytes: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    cursor.skip_blanks();
    let records = match cursor.peek() {
        Some(b'{') => vec![cursor.element()?],
        Some(b'[') => {
            cursor.at += 1;
            cursor.elements()?
        }
        _ => return Err("a JSON body is an array of objects, or one object".to_owned()),
    };
    cursor.skip_blanks();
    match cursor.peek() {
        None => Ok(records),
        Some(_) => Err(format!(
            "something follows the JSON value at byte {}: for one object per line send application/x-ndjson",
            cursor.at
        )),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Up to the array's end; the cursor stands after its bracket.
    fn elements(&mut self) -> Result<Vec<Range<usize>>, String> {
        let mut found = Vec::new();
        self.skip_blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(found);
        }
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'{') {
                return Err(format!("element {} of the array is no object", found.len() + 1));
            }
            found.push(self.element()?);
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(found);
                }
                _ => return Err(format!("a comma or the array's end is missing after its element {}", found.len())),
            }
        }
    }

    /// The object that begins here.
    fn element(&mut self) -> Result<Range<usize>, String> {
        let start = self.at;
        let cut = || format!("the JSON object that begins at byte {start} has no end: was the body cut?");
        let mut depth = 0_usize;
        while let Some(step) = memchr::memchr3(b'"', b'}', b']', &self.bytes[self.at..]).map(|end| self.at + end) {
            depth += self.bytes[self.at..step].iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
            if depth > DEPTH_MAX {
                return Err(format!("the JSON object that begins at byte {start} is nested deeper than {DEPTH_MAX}"));
            }
            self.at = step + 1;
            if self.bytes[step] == b'"' {
                self.skip_text().ok_or_else(cut)?;
            } else {
                depth = depth.checked_sub(1).ok_or_else(cut)?;
                if depth == 0 {
                    return Ok(start..self.at);
                }
            }
        }
        Err(cut())
    }

    /// To after the closing quote; the cursor stands after the opening one.
    fn skip_text(&mut self) -> Option<()> {
        loop {
            let step = memchr::memchr2(b'"', b'\\', &self.bytes[self.at..])?;
            let quote = self.bytes[self.at + step] == b'"';
            self.at += step + if quote { 1 } else { 2 };
            if quote {
                return Some(());
            }
            if self.at > self.bytes.len() {
                return None;
            }
        }
    }
}
