//! What both formats say of an event.

use audit_host::json::Value;
use audit_host::Buffer;

/// The texts of the payload that are told, each empty where there is none.
pub struct Fields {
    /// refuse, warn or allow.
    pub decision: Buffer,
    pub rule: Buffer,
    pub reason: Buffer,
    /// What was to be done: action.kind.
    pub kind: Buffer,
}

impl Fields {
    pub const fn new() -> Fields {
        Fields { decision: Buffer::new(), rule: Buffer::new(), reason: Buffer::new(), kind: Buffer::new() }
    }

    /// Reads a payload. A text that is not where it belongs, or is none, counts as
    /// absent: an event is told of all the same.
    pub fn read(&mut self, payload: &[u8]) {
        for b in [&mut self.decision, &mut self.rule, &mut self.reason, &mut self.kind] {
            b.clear();
        }
        for (name, value) in Value(payload).object().into_iter().flatten() {
            if name != b"action" && name != b"decision" {
                continue;
            }
            for (key, value) in value.object().into_iter().flatten() {
                let into = match (name, key) {
                    (b"action", b"kind") => &mut self.kind,
                    (b"decision", b"decision") => &mut self.decision,
                    (b"decision", b"rule_id") => &mut self.rule,
                    (b"decision", b"reason") => &mut self.reason,
                    _ => continue,
                };
                into.clear();
                if !value.text(into) {
                    into.clear();
                }
            }
        }
    }
}

/// Cuts a text to a number of bytes, between characters.
pub fn cut(text: &[u8], most: usize) -> &[u8] {
    if text.len() <= most {
        return text;
    }
    let mut end = most;
    while end > 0 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

pub fn put_hex(out: &mut Buffer, bytes: &[u8]) {
    for b in bytes {
        out.put_byte(b"0123456789abcdef"[(b >> 4) as usize]);
        out.put_byte(b"0123456789abcdef"[(b & 15) as usize]);
    }
}

/// A point of time as an event tells it: RFC 3339.
pub struct Moment<'a> {
    /// Seconds since 1970. The sixtieth second of a minute is the first of the
    /// next.
    pub seconds: i64,
    /// The digits behind the point.
    pub fraction: &'a [u8],
    /// It is a leap second.
    pub leap: bool,
    /// The text before the fraction and the offset behind it.
    pub before: &'a [u8],
    pub offset: &'a [u8],
}

impl<'a> Moment<'a> {
    pub fn parse(text: &'a [u8]) -> Option<Moment<'a>> {
        let number = |from: usize, to: usize| {
            text.get(from..to)?.iter().try_fold(0i64, |v, c| c.is_ascii_digit().then(|| v * 10 + (c - b'0') as i64))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if marks.iter().any(|(at, c)| text[*at] != *c) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (before, mut rest) = text.split_at(19);
        let mut fraction: &[u8] = &[];
        if let [b'.', digits @ ..] = rest {
            let n = digits.iter().take_while(|c| c.is_ascii_digit()).count();
            fraction = &digits[..n];
            rest = &digits[n..];
        }
        let east = match rest {
            b"Z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|c| c.is_ascii_digit()) => {
                let digit = |c: &u8| (c - b'0') as i64;
                let minutes = (digit(h1) * 10 + digit(h2)) * 60 + digit(m1) * 10 + digit(m2);
                if *sign == b'+' { minutes } else { -minutes }
            }
            _ => return None,
        };
        // Days since 1970 in the calendar that goes on for ever: years begin in
        // March, so that the leap day is the last of its year.
        let y = if month > 2 { year } else { year - 1 };
        let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + ((month + 9) % 12 * 153 + 2) / 5 + day - 1 - 719_468;
        let seconds = ((days * 24 + hour) * 60 + minute - east) * 60 + second;
        Some(Moment { seconds, fraction, leap: second == 60, before, offset: rest })
    }

    /// Milliseconds since 1970.
    pub fn milliseconds(&self) -> i64 {
        let ms = (0..3).fold(0, |v, i| v * 10 + self.fraction.get(i).map_or(0, |c| (c - b'0') as i64));
        self.seconds * 1000 + ms
    }
}
