//! A sink that writes a line for each event into the file of its append grant:
//! id, tab, type, tab, payload. Configuration: `{"prefix": TEXT}`, which comes
//! before each line.
#![no_std]

use audit_host::json::Value;
use audit_host::{host, Answer, Batch, Buffer, Sink};

/// How many bytes are collected before they are appended. A record is whole
/// lines, so a longer line is appended as it is.
const PORTION: usize = 256 << 10;

struct Lines {
    prefix: Buffer,
    lines: Buffer,
}

/// Reads the configuration; `None` if it is not what is wanted.
fn read(config: &[u8]) -> Option<Buffer> {
    let mut prefix = Buffer::new();
    for (key, value) in Value(config).object()? {
        if key != b"prefix" || !prefix.is_empty() || !value.text(&mut prefix) {
            return None;
        }
    }
    (!prefix.contains(&b'\n')).then(|| prefix)
}

impl Sink for Lines {
    fn open(config: &[u8]) -> Result<Self, Answer> {
        match read(config) {
            Some(prefix) => Ok(Lines { prefix, lines: Buffer::new() }),
            None => Err(Answer::bad_config("wanted {\"prefix\": TEXT} or {}, TEXT without a line feed")),
        }
    }

    fn deliver(&mut self, batch: &Batch) -> Answer {
        self.lines.clear();
        for (i, event) in batch.events().enumerate() {
            self.lines.put(&self.prefix);
            self.lines.put(event.id());
            self.lines.put_byte(b'\t');
            self.lines.put(event.event_type());
            self.lines.put_byte(b'\t');
            self.lines.put(event.payload());
            self.lines.put_byte(b'\n');
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

audit_host::sink!(Lines);
