//! ArcSight's Common Event Format, version 0:
//!
//!     CEF:0|Vendor|Product|Version|Class ID|Name|Severity|key=value key=value …

use audit_host::{Buffer, Event};

use crate::fields::{cut, put_hex, Fields, Moment};

/// The format's own limits on texts, in bytes.
const MOST_CLASS: usize = 1023;
const MOST_NAME: usize = 512;
const MOST_REASON: usize = 1023;
const MOST_CUSTOM: usize = 4000;
const MOST_USER: usize = 1023;

/// Appends a text of the header: \ and | get a backslash, and what would end the
/// line becomes a space, for a header knows no escape for it.
pub fn header(out: &mut Buffer, text: &[u8]) {
    for c in text {
        match c {
            b'\\' | b'|' => {
                out.put_byte(b'\\');
                out.put_byte(*c);
            }
            0..=31 | 127 => out.put_byte(b' '),
            _ => out.put_byte(*c),
        }
    }
}

/// Appends a value of the extension: \ and = get a backslash, a line feed is
/// written \n and a carriage return \r. Other control characters become a space.
fn value(out: &mut Buffer, text: &[u8]) {
    for c in text {
        match c {
            b'\\' | b'=' => {
                out.put_byte(b'\\');
                out.put_byte(*c);
            }
            b'\n' => out.put(b"\\n"),
            b'\r' => out.put(b"\\r"),
            0..=31 | 127 => out.put_byte(b' '),
            _ => out.put_byte(*c),
        }
    }
}

/// Appends a member of the extension, but for an empty one.
fn member(out: &mut Buffer, key: &str, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    out.put_byte(b' ');
    out.put_str(key);
    out.put_byte(b'=');
    value(out, text);
}

/// 0 to 10.
fn severity(decision: &[u8]) -> u8 {
    match decision {
        b"refuse" => b'7',
        b"allow" => b'2',
        _ => b'5',
    }
}

/// Appends an event. `device` is vendor, product and version as the header has
/// them, with the bar behind them.
pub fn line(out: &mut Buffer, device: &[u8], e: &Event, f: &Fields) {
    out.put(b"CEF:0|");
    out.put(device);
    header(out, cut(if f.rule.is_empty() { e.event_type() } else { &f.rule }, MOST_CLASS));
    out.put_byte(b'|');
    header(out, cut(e.event_type(), MOST_NAME));
    out.put_byte(b'|');
    out.put_byte(severity(&f.decision));
    out.put(b"|cn1Label=queuePosition cn1=");
    out.put_number(e.seq());
    if let Some(m) = Moment::parse(e.timestamp()) {
        out.put(b" rt=");
        let ms = m.milliseconds();
        if ms < 0 {
            out.put_byte(b'-');
        }
        out.put_number(ms.unsigned_abs());
    }
    member(out, "suser", cut(e.agent(), MOST_USER));
    member(out, "act", &f.decision);
    member(out, "reason", cut(&f.reason, MOST_REASON));
    out.put(b" cs1Label=eventId");
    member(out, "cs1", e.id());
    if !f.kind.is_empty() {
        out.put(b" cs2Label=actionKind");
        member(out, "cs2", cut(&f.kind, MOST_CUSTOM));
    }
    out.put(b" cs3Label=payloadSha256 cs3=");
    put_hex(out, e.payload_hash());
    out.put(b" cs4Label=attestation");
    member(out, "cs4", e.level());
    if e.signature().is_some() {
        out.put(b" cs5Label=keyId");
        member(out, "cs5", e.key_id());
    }
    out.put_byte(b'\n');
}
