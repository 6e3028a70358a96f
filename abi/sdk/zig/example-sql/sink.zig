//! A sink that keeps id and payload of each event in a table of its own, in the
//! database of its sql grant. An event that comes twice is stored once. It has no
//! configuration: {}.
const audit = @import("audit_host");

pub const panic = audit.panic;

/// It has the rule that makes the sink idempotent: a row whose id is there already
/// is passed over.
const table =
    \\CREATE TABLE IF NOT EXISTS events (
    \\    id      TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE,
    \\    payload TEXT NOT NULL
    \\)
;

/// How long to be left alone when the database is not to be had, in ms.
const pause = 1000;

/// SQLITE_CONSTRAINT, the lower byte of its extended codes.
const sqlite_constraint = 19;

var cells = audit.Buffer{};
/// For the text of an error.
var out: [1024]u8 = undefined;

pub fn open(config: []const u8) audit.Answer {
    var members = audit.json.Members.of(config) orelse return audit.badConfig("wanted {}");
    if (members.next() != null) return audit.badConfig("wanted {}");
    return audit.ok(0);
}

/// A batch is stored in one transaction, which the host begins and commits. It may
/// come again: after a BUSY, after a crash, after an answer that was lost.
pub fn deliver(batch: audit.Batch) audit.Answer {
    if (batch.count == 0) return audit.ok(0);
    cells.clear();
    for (0..batch.count) |i| {
        const event = batch.event(i);
        cells.putCell(audit.Cell.text(event.id));
        cells.putCell(audit.Cell.text(event.payload));
    }
    const steps = [_]audit.Step{
        audit.Step.of(audit.abi.sql_exec, table, 0, &.{}),
        // The host adds the placeholders, for 16 rows at a time.
        audit.Step.of(audit.abi.sql_many, "INSERT INTO events (id, payload) VALUES", 2, cells.cells()),
    };
    const r = audit.sql(audit.abi.sql_write, &steps, &out);
    if (r.status == audit.abi.sql_done) return audit.ok(batch.count);
    // A refused batch comes again in halves, so that in the end only the event that
    // is at fault is a dead letter. A lock, a full disk, another table of that name:
    // waiting or the operator mends it.
    const never = r.status == audit.abi.sql_too_large or r.status <= 0xffff and r.status & 0xff == sqlite_constraint;
    return if (never) audit.reject(r.bytes) else audit.busy(pause, r.bytes);
}

comptime {
    audit.sink(@This());
}
