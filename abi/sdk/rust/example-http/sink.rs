//! A sink that posts batches to one URL, as lines of JSON: the event's payload
//! with its id as the first member. Configuration: `{"url": TEXT}`, which the
//! http grant has to allow.
#![no_std]

use audit_host::abi::STATUS_TOO_LARGE;
use audit_host::json::Value;
use audit_host::{host, Answer, Batch, Buffer, Event, Sink};

/// How long to be left alone when the server is not to be had, in ms.
const PAUSE: u32 = 1000;

/// Longer answers are cut.
const ANSWER: usize = 16 << 10;

struct Poster {
    head: Buffer,
    body: Buffer,
    answer: Buffer,
}

/// Reads the configuration; `None` if it is not what is wanted.
fn read(config: &[u8]) -> Option<Buffer> {
    let mut url = Buffer::new();
    for (key, value) in Value(config).object()? {
        if key != b"url" || !url.is_empty() || !value.text(&mut url) {
            return None;
        }
    }
    let good = (url.starts_with(b"http://") || url.starts_with(b"https://")) && url.iter().all(|c| *c > b' ');
    good.then(|| url)
}

/// Adds `{"id":"…",` and the rest of the payload, which is an object.
fn put_line(body: &mut Buffer, event: &Event) {
    body.put_str("{\"id\":\"");
    for c in event.id() {
        // It has no control characters.
        if *c == b'"' || *c == b'\\' {
            body.put_byte(b'\\');
        }
        body.put_byte(*c);
    }
    body.put_byte(b'"');
    match event.payload() {
        [_, rest @ ..] if rest.len() > 1 => {
            body.put_byte(b',');
            body.put(rest);
        }
        _ => body.put_byte(b'}'), // {}
    }
    body.put_byte(b'\n');
}

/// As much of the bytes as is text.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_else(|e| core::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or(""))
}

impl Sink for Poster {
    fn open(config: &[u8]) -> Result<Self, Answer> {
        let url = match read(config) {
            Some(url) => url,
            None => return Err(Answer::bad_config("wanted {\"url\": TEXT}, a URL that begins with http:// or https://")),
        };
        let mut head = Buffer::new();
        head.put_str("POST ");
        head.put(&url);
        head.put_str("\nContent-Type: application/x-ndjson\n");
        Ok(Poster { head, body: Buffer::new(), answer: Buffer::zeroed(ANSWER) })
    }

    /// A batch may come again: after a BUSY, after a crash, after an answer that
    /// was lost. So each line carries the id.
    fn deliver(&mut self, batch: &Batch) -> Answer {
        if batch.is_empty() {
            return Answer::ok(0);
        }
        self.body.clear();
        for event in batch.events() {
            put_line(&mut self.body, &event);
        }
        let answer = match host::http(&self.head, &self.body, &mut self.answer) {
            Ok(answer) => answer,
            // Nothing was sent. A refused batch comes again in halves, so that
            // in the end only an event that is too large by itself is a dead
            // letter.
            Err((STATUS_TOO_LARGE, why)) => return Answer::reject(text(why)),
            // No connection, no answer, not granted: waiting or the operator
            // mends it.
            Err((_, why)) => return Answer::busy(PAUSE, text(why)),
        };
        if (200..300).contains(&answer.code) {
            return Answer::ok(batch.len());
        }
        let mut why = Buffer::new();
        why.put_str("HTTP ");
        why.put_number(answer.code.into());
        why.put_byte(b' ');
        why.put(&answer.body[..answer.body.len().min(200)]);
        match answer.code {
            400 | 413 | 422 => Answer::reject(text(&why)),
            _ => Answer::busy(PAUSE, text(&why)),
        }
    }
}

audit_host::sink!(Poster);
