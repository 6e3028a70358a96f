//! A sink that writes a line for each event into the file of its append grant:
//! id, tab, type, tab, payload. Configuration: {"prefix": TEXT}, which comes before
//! each line.
const std = @import("std");
const audit = @import("audit_host");

pub const panic = audit.panic;

/// How many bytes are collected before they are appended. A record is whole lines,
/// so a longer line is appended as it is.
const portion = 256 << 10;

var prefix = audit.Buffer{};
var lines = audit.Buffer{};

/// Reads the configuration; false if it is not what is wanted.
fn read(config: []const u8) bool {
    prefix.clear();
    var members = audit.json.Members.of(config) orelse return false;
    while (members.next()) |m| {
        if (!std.mem.eql(u8, m.key, "prefix") or prefix.len > 0 or !audit.json.text(m.value, &prefix)) return false;
    }
    return std.mem.indexOfScalar(u8, prefix.bytes(), '\n') == null;
}

pub fn open(config: []const u8) audit.Answer {
    if (!read(config)) return audit.badConfig("wanted {\"prefix\": TEXT} or {}, TEXT without a line feed");
    return audit.ok(0);
}

pub fn deliver(batch: audit.Batch) audit.Answer {
    lines.clear();
    for (0..batch.count) |i| {
        const event = batch.event(i);
        lines.put(prefix.bytes());
        lines.put(event.id);
        lines.putByte('\t');
        lines.put(event.type);
        lines.putByte('\t');
        lines.put(event.payload);
        lines.putByte('\n');
        if (lines.len < portion and i + 1 < batch.count) continue;
        if (audit.append(lines.bytes()) != audit.abi.status_done)
            return audit.busy(1000, "append failed; the host's log says why");
        lines.clear();
    }
    // The host makes the lines durable before it believes this.
    return audit.ok(batch.count);
}

comptime {
    audit.sink(@This());
}
