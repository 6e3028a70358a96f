//! Syslog lines of RFC 5424:
//!
//!     <PRI>1 TIMESTAMP HOSTNAME APP-NAME - MSGID [SD-ID name="value" …] PAYLOAD

use audit_host::{Buffer, Event};

use crate::fields::{put_hex, Fields, Moment};

/// Log audit.
const FACILITY: u64 = 13;

/// Appends a value of the structured data: " \ and ] get a backslash, and control
/// characters become a space, for the format has no escape for them and this file
/// one event a line.
fn value(out: &mut Buffer, text: &[u8]) {
    for c in text {
        match c {
            b'"' | b'\\' | b']' => {
                out.put_byte(b'\\');
                out.put_byte(*c);
            }
            0..=31 | 127 => out.put_byte(b' '),
            _ => out.put_byte(*c),
        }
    }
}

fn parameter(out: &mut Buffer, name: &str, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    out.put_byte(b' ');
    out.put_str(name);
    out.put(b"=\"");
    value(out, text);
    out.put_byte(b'"');
}

fn severity(decision: &[u8]) -> u64 {
    match decision {
        b"refuse" => 4, // warning
        b"allow" => 6,  // informational
        _ => 5,         // notice
    }
}

/// Appends the time with the six digits that the format takes at most, or - where
/// it can't be told: the format has no leap seconds.
fn timestamp(out: &mut Buffer, text: &[u8]) {
    match Moment::parse(text) {
        Some(m) if !m.leap => {
            out.put(m.before);
            if !m.fraction.is_empty() {
                out.put_byte(b'.');
                out.put(&m.fraction[..m.fraction.len().min(6)]);
            }
            out.put(m.offset);
        }
        _ => out.put_byte(b'-'),
    }
}

/// Whether a text is one that a header takes: printable ASCII without a space.
pub fn printable(text: &[u8], most: usize) -> bool {
    !text.is_empty() && text.len() <= most && text.iter().all(|c| (33..=126).contains(c))
}

/// Whether a text names structured data.
pub fn names_data(text: &[u8]) -> bool {
    printable(text, 32) && !text.iter().any(|c| matches!(c, b'=' | b']' | b'"'))
}

/// Appends the event type as a MSGID of at most 32 characters; what it does not
/// take becomes _.
fn message_id(out: &mut Buffer, text: &[u8]) {
    for c in &text[..text.len().min(32)] {
        out.put_byte(if (33..=126).contains(c) { *c } else { b'_' });
    }
    if text.is_empty() {
        out.put_byte(b'-');
    }
}

/// Appends an event. `source` is host name and application with a space behind
/// each.
pub fn line(out: &mut Buffer, source: &[u8], data: &[u8], e: &Event, f: &Fields) {
    out.put_byte(b'<');
    out.put_number(FACILITY * 8 + severity(&f.decision));
    out.put(b">1 ");
    timestamp(out, e.timestamp());
    out.put_byte(b' ');
    out.put(source);
    out.put(b"- ");
    message_id(out, e.event_type());
    out.put(b" [");
    out.put(data);
    parameter(out, "id", e.id());
    parameter(out, "agent", e.agent());
    parameter(out, "decision", &f.decision);
    parameter(out, "rule", &f.rule);
    parameter(out, "reason", &f.reason);
    parameter(out, "kind", &f.kind);
    out.put(b" position=\"");
    out.put_number(e.seq());
    out.put(b"\" sha256=\"");
    put_hex(out, e.payload_hash());
    out.put_byte(b'"');
    parameter(out, "attestation", e.level());
    if e.signature().is_some() {
        parameter(out, "key", e.key_id());
    }
    out.put(b"] ");
    if !e.payload().is_ascii() {
        // The format's mark of UTF-8.
        out.put(b"\xef\xbb\xbf");
    }
    out.put(e.payload());
    out.put_byte(b'\n');
}
