//! The sink sink-cef: a line for each event into the file of its append grant, in
//! ArcSight's CEF or as syslog of RFC 5424. README.md has the configuration and
//! the fields.
//!
//! Guarantee: an event that counts as stored is on disk; the host syncs the file
//! before it believes the answer. Each event is one line, whatever its texts hold,
//! and no text of it can be read as another field. Not guaranteed: that a line is
//! there once only, nor that long texts are whole: readers know an event by its id,
//! and its payload by the hash.
#![no_std]

mod cef;
mod fields;
mod rfc5424;

use audit_host::json::Value;
use audit_host::{host, Answer, Batch, Buffer, Sink};

use fields::Fields;

/// How many bytes are collected before they are appended. A record is whole
/// lines, so a longer line is appended as it is.
const PORTION: usize = 256 << 10;

struct Cef {
    rfc5424: bool,
    /// What every line has: vendor, product and version, or host and product.
    device: Buffer,
    data: Buffer,
    fields: Fields,
    lines: Buffer,
}

/// The configuration as it stands; an empty text is one that was not given.
struct Config {
    format: Buffer,
    vendor: Buffer,
    product: Buffer,
    version: Buffer,
    hostname: Buffer,
    data: Buffer,
}

/// Reads the configuration, or says what is wrong with it.
fn read(config: &[u8]) -> Result<Config, &'static str> {
    let mut c = Config { format: Buffer::new(), vendor: Buffer::new(), product: Buffer::new(), version: Buffer::new(), hostname: Buffer::new(), data: Buffer::new() };
    for (key, value) in Value(config).object().ok_or("the configuration is no JSON object")? {
        let into = match key {
            b"format" => &mut c.format,
            b"vendor" => &mut c.vendor,
            b"product" => &mut c.product,
            b"version" => &mut c.version,
            b"hostname" => &mut c.hostname,
            b"sd_id" => &mut c.data,
            _ => return Err("unknown key; wanted format, vendor, product, version, hostname, sd_id"),
        };
        if !into.is_empty() || !value.text(into) || into.is_empty() {
            return Err("each key has one text, and not an empty one");
        }
    }
    Ok(c)
}

fn or<'a>(given: &'a Buffer, preset: &'static str) -> &'a [u8] {
    if given.is_empty() { preset.as_bytes() } else { given }
}

fn open(config: &[u8]) -> Result<Cef, &'static str> {
    let c = read(config)?;
    let rfc5424 = match or(&c.format, "cef") {
        b"cef" => false,
        b"rfc5424" => true,
        _ => return Err("format must be cef or rfc5424"),
    };
    let others = if rfc5424 { [&c.vendor, &c.version] } else { [&c.hostname, &c.data] };
    if others.iter().any(|b| !b.is_empty()) {
        return Err("vendor and version are of the format cef, hostname and sd_id of rfc5424");
    }
    let mut device = Buffer::new();
    let mut data = Buffer::new();
    if rfc5424 {
        for (text, most) in [(or(&c.hostname, "-"), 255), (or(&c.product, "audit-host"), 48)] {
            if !rfc5424::printable(text, most) {
                return Err("hostname and product must be printable ASCII without a space, up to 255 and 48 characters");
            }
            device.put(text);
            device.put_byte(b' ');
        }
        data.put(or(&c.data, "audit@32473"));
        if !rfc5424::names_data(&data) {
            return Err("sd_id must be printable ASCII without a space, = ] or \", up to 32 characters");
        }
    } else {
        for (text, most) in [(or(&c.vendor, "audit-host"), 63), (or(&c.product, "audit-host"), 63), (or(&c.version, "1"), 31)] {
            if text.len() > most || text.iter().any(|b| b.is_ascii_control()) {
                return Err("vendor and product have up to 63 bytes, version up to 31, and none a control character");
            }
            cef::header(&mut device, text);
            device.put_byte(b'|');
        }
    }
    Ok(Cef { rfc5424, device, data, fields: Fields::new(), lines: Buffer::new() })
}

impl Sink for Cef {
    fn open(config: &[u8]) -> Result<Self, Answer> {
        open(config).map_err(Answer::bad_config)
    }

    fn deliver(&mut self, batch: &Batch) -> Answer {
        self.lines.clear();
        for (i, event) in batch.events().enumerate() {
            self.fields.read(event.payload());
            if self.rfc5424 {
                rfc5424::line(&mut self.lines, &self.device, &self.data, &event, &self.fields);
            } else {
                cef::line(&mut self.lines, &self.device, &event, &self.fields);
            }
            if self.lines.len() < PORTION && i + 1 < batch.len() {
                continue;
            }
            if host::append(&self.lines).is_err() {
                return Answer::busy(1000, "append failed; the host's log says why");
            }
            self.lines.clear();
        }
        // The host makes the lines durable before it believes this.
        Answer::ok(batch.len())
    }
}

audit_host::sink!(Cef);
