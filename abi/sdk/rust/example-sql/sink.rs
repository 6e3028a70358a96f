//! A sink that keeps id and payload of each event in a table of its own, in the
//! database of its sql grant. An event that comes twice is stored once. It has no
//! configuration: `{}`.
#![no_std]

use audit_host::abi::{SQL_EXEC, SQL_MANY, SQL_TOO_LARGE, SQL_WRITE};
use audit_host::json::Value;
use audit_host::sql::Script;
use audit_host::{Answer, Batch, Sink};

/// It has the rule that makes the sink idempotent: a row whose id is there
/// already is passed over.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (
    id      TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE,
    payload TEXT NOT NULL
)";

/// How long to be left alone when the database is not to be had, in ms.
const PAUSE: u32 = 1000;

/// SQLITE_CONSTRAINT, the lower byte of its extended codes.
const SQLITE_CONSTRAINT: u32 = 19;

struct Table;

/// As much of the bytes as is text.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_else(|e| core::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or(""))
}

impl Sink for Table {
    fn open(config: &[u8]) -> Result<Self, Answer> {
        match Value(config).object().map(|mut members| members.next().is_none()) {
            Some(true) => Ok(Table),
            _ => Err(Answer::bad_config("wanted {}")),
        }
    }

    /// A batch is stored in one transaction, which the host begins and commits.
    /// It may come again: after a BUSY, after a crash, after an answer that was
    /// lost.
    fn deliver(&mut self, batch: &Batch) -> Answer {
        if batch.is_empty() {
            return Answer::ok(0);
        }
        let mut script = Script::new();
        script.step(SQL_EXEC, TABLE, 0, 0);
        // The host adds the placeholders, for 16 rows at a time.
        script.step(SQL_MANY, "INSERT INTO events (id, payload) VALUES", 2, batch.len() as u32);
        for event in batch.events() {
            script.text(event.id()).text(event.payload());
        }
        let mut out = [0; 1024]; // for the text of an error
        match script.run(SQL_WRITE, &mut out) {
            Ok(_) => Answer::ok(batch.len()),
            // A refused batch comes again in halves, so that in the end only the
            // event that is at fault is a dead letter.
            Err((status, why)) if status == SQL_TOO_LARGE || status <= 0xffff && status & 0xff == SQLITE_CONSTRAINT => Answer::reject(text(why)),
            // A lock, a full disk, another table of that name: waiting or the
            // operator mends it.
            Err((_, why)) => Answer::busy(PAUSE, text(why)),
        }
    }
}

audit_host::sink!(Table);
