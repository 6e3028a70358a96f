//! A modest reader of JSON: the members of one object, one after the other.
//!
//! A value is the text as it stands. Keys are compared as they stand, escapes
//! included.

use crate::memory::Buffer;

/// How many arrays and objects may lie within each other: as many as in an event.
const DEPTH: usize = 128;

fn space(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && matches!(text[at], b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

/// Passes over one byte.
fn byte(text: &[u8], at: usize, wanted: u8) -> Option<usize> {
    (text.get(at) == Some(&wanted)).then(|| at + 1)
}

/// Passes over a string.
fn string(text: &[u8], at: usize) -> Option<usize> {
    let mut at = byte(text, at, b'"')?;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..=31 => return None,
            _ => at += 1,
        }
    }
}

/// Passes over a key, its colon, and the space behind it.
fn key(text: &[u8], at: usize) -> Option<usize> {
    let at = string(text, space(text, at))?;
    Some(space(text, byte(text, space(text, at), b':')?))
}

/// Passes over any value, without looking into numbers.
fn value(text: &[u8], mut at: usize) -> Option<usize> {
    // The brackets that are awaited.
    let mut open = [0; DEPTH];
    let mut depth = 0;
    loop {
        at = space(text, at);
        match *text.get(at)? {
            c @ (b'{' | b'[') => {
                *open.get_mut(depth)? = if c == b'{' { b'}' } else { b']' };
                depth += 1;
                at = space(text, at + 1);
                if byte(text, at, open[depth - 1]).is_none() {
                    if c == b'{' {
                        at = key(text, at)?;
                    }
                    continue;
                }
            }
            b'"' => at = string(text, at)?,
            _ => {
                let from = at;
                while text.get(at).map_or(false, |c| matches!(c, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')) {
                    at += 1;
                }
                if at == from {
                    return None;
                }
            }
        }
        // What follows a value.
        loop {
            if depth == 0 {
                return Some(at);
            }
            at = space(text, at);
            if let Some(after) = byte(text, at, open[depth - 1]) {
                depth -= 1;
                at = after;
                continue;
            }
            at = byte(text, at, b',')?;
            if open[depth - 1] == b'}' {
                at = key(text, at)?;
            }
            break;
        }
    }
}

/// The text of one value.
#[derive(Clone, Copy)]
pub struct Value<'a>(pub &'a [u8]);

impl<'a> Value<'a> {
    /// The members of an object; `None` if it is none.
    pub fn object(&self) -> Option<Object<'a>> {
        let text = self.0;
        let at = space(text, 0);
        byte(text, at, b'{')?;
        // The whole of it is passed over first: what is read later is well formed.
        let end = value(text, at)?;
        (space(text, end) == text.len()).then(|| Object { text: &text[..end - 1], at: at + 1, begun: false })
    }

    /// Appends a string without its escapes; false if the value is none. A half
    /// of a surrogate pair becomes U+FFFD.
    pub fn text(&self, out: &mut Buffer) -> bool {
        if string(self.0, 0) != Some(self.0.len()) {
            return false;
        }
        let text = &self.0[1..self.0.len() - 1];
        let mut at = 0;
        while at < text.len() {
            let plain = text[at..].iter().position(|c| *c == b'\\').unwrap_or(text.len() - at);
            out.put(&text[at..at + plain]);
            at += plain;
            if at == text.len() {
                break;
            }
            let c = text[at + 1];
            at += 2;
            out.put_char(match c {
                b'b' => '\x08',
                b'f' => '\x0c',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'"' | b'\\' | b'/' => c as char,
                b'u' => match hex(text, at) {
                    None => return false,
                    Some(high) => {
                        at += 4;
                        let low = if text[at..].starts_with(b"\\u") { hex(text, at + 2) } else { None };
                        match (high, low) {
                            (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                                at += 6;
                                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).unwrap_or('\u{fffd}')
                            }
                            _ => char::from_u32(high).unwrap_or('\u{fffd}'),
                        }
                    }
                },
                _ => return false,
            });
        }
        true
    }
}

fn hex(text: &[u8], at: usize) -> Option<u32> {
    let mut v = 0;
    for i in at..at + 4 {
        v = v << 4 | (*text.get(i)? as char).to_digit(16)?;
    }
    Some(v)
}

/// The members of an object, as an iterator: the key without its quotation marks,
/// and the value.
pub struct Object<'a> {
    text: &'a [u8],
    at: usize,
    begun: bool,
}

impl<'a> Iterator for Object<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = space(self.text, self.at);
        if at == self.text.len() {
            return None;
        }
        if self.begun {
            at = space(self.text, at + 1); // the comma
        }
        self.begun = true;
        let name = &self.text[at + 1..string(self.text, at)? - 1];
        let from = key(self.text, at)?;
        self.at = value(self.text, from)?;
        Some((name, Value(&self.text[from..self.at])))
    }
}
