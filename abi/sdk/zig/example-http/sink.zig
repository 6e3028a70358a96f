//! A sink that posts batches to one URL, as lines of JSON: the event's payload with
//! its id as the first member. Configuration: {"url": TEXT}, which the http grant
//! has to allow.
const std = @import("std");
const audit = @import("audit_host");

pub const panic = audit.panic;

/// How long to be left alone when the server is not to be had, in ms.
const pause = 1000;

var url = audit.Buffer{};
var head = audit.Buffer{};
var body = audit.Buffer{};
var why = audit.Buffer{};
/// Longer answers are cut.
var answer: [16 << 10]u8 = undefined;

/// Reads the configuration; false if it is not what is wanted.
fn read(config: []const u8) bool {
    url.clear();
    var members = audit.json.Members.of(config) orelse return false;
    while (members.next()) |m| {
        if (!std.mem.eql(u8, m.key, "url") or url.len > 0 or !audit.json.text(m.value, &url)) return false;
    }
    for (url.bytes()) |c| {
        if (c <= ' ') return false;
    }
    return std.mem.startsWith(u8, url.bytes(), "http://") or std.mem.startsWith(u8, url.bytes(), "https://");
}

pub fn open(config: []const u8) audit.Answer {
    if (!read(config)) return audit.badConfig("wanted {\"url\": TEXT}, a URL that begins with http:// or https://");
    head.clear();
    head.put("POST ");
    head.put(url.bytes());
    head.put("\nContent-Type: application/x-ndjson\n");
    return audit.ok(0);
}

/// Adds {"id":"…", and the rest of the payload, which is an object.
fn putLine(event: audit.Event) void {
    body.put("{\"id\":\"");
    for (event.id) |c| { // it has no control characters
        if (c == '"' or c == '\\') body.putByte('\\');
        body.putByte(c);
    }
    body.putByte('"');
    if (event.payload.len > 2) { // more than {}
        body.putByte(',');
        body.put(event.payload[1..]);
    } else {
        body.putByte('}');
    }
    body.putByte('\n');
}

/// A batch may come again: after a BUSY, after a crash, after an answer that was
/// lost. So each line carries the id.
pub fn deliver(batch: audit.Batch) audit.Answer {
    if (batch.count == 0) return audit.ok(0);
    body.clear();
    for (0..batch.count) |i| putLine(batch.event(i));
    const a = audit.http(head.bytes(), body.bytes(), &answer);
    // Nothing was sent. A refused batch comes again in halves, so that in the end
    // only an event that is too large by itself is a dead letter.
    if (a.status == audit.abi.status_too_large) return audit.reject(a.reason);
    // No connection, no answer, not granted: waiting or the operator mends it.
    if (a.status != audit.abi.status_done) return audit.busy(pause, a.reason);
    if (a.code >= 200 and a.code <= 299) return audit.ok(batch.count);
    why.clear();
    why.put("HTTP ");
    why.putNumber(a.code);
    why.putByte(' ');
    why.put(a.body[0..@min(a.body.len, 200)]);
    return switch (a.code) {
        400, 413, 422 => audit.reject(why.bytes()),
        else => audit.busy(pause, why.bytes()),
    };
}

comptime {
    audit.sink(@This());
}
