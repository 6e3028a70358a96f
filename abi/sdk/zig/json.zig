//! A modest reader of JSON: the members of one object, one after the other.
//!
//!     var members = audit.json.Members.of(config) orelse return bad;
//!     while (members.next()) |m| {
//!         if (!std.mem.eql(u8, m.key, "prefix") or !audit.json.text(m.value, &prefix)) return bad;
//!     }
//!
//! A value is the text as it stands. Keys are compared as they stand, escapes
//! included.
const std = @import("std");
const Buffer = @import("audit_host.zig").Buffer;

/// How many arrays and objects may lie within each other: as many as in an event.
const most = 128;

fn space(b: []const u8, from: usize) usize {
    var at = from;
    while (at < b.len and (b[at] == ' ' or b[at] == '\t' or b[at] == '\n' or b[at] == '\r')) at += 1;
    return at;
}

/// What passes over something returns where it ends.
fn byte(b: []const u8, at: usize, c: u8) ?usize {
    return if (at < b.len and b[at] == c) at + 1 else null;
}

fn string(b: []const u8, from: usize) ?usize {
    var at = byte(b, from, '"') orelse return null;
    while (at < b.len and b[at] >= ' ') : (at += 1) {
        if (b[at] == '"') return at + 1;
        if (b[at] == '\\') at += 1;
    }
    return null;
}

fn key(b: []const u8, from: usize) ?usize {
    const at = string(b, space(b, from)) orelse return null;
    return space(b, byte(b, space(b, at), ':') orelse return null);
}

/// Passes over any value, without looking into numbers.
fn value(b: []const u8, from: usize) ?usize {
    var open: [most]u8 = undefined; // the brackets that are awaited
    var depth: usize = 0;
    var at = from;
    while (true) {
        at = space(b, at);
        if (at == b.len) return null;
        const c = b[at];
        if (c == '{' or c == '[') {
            if (depth == most) return null;
            open[depth] = c + 2; // { } and [ ] stand two apart
            depth += 1;
            at = space(b, at + 1);
            if (byte(b, at, c + 2) == null) {
                if (c == '{') at = key(b, at) orelse return null;
                continue;
            }
        } else if (c == '"') {
            at = string(b, at) orelse return null;
        } else {
            const start = at;
            while (at < b.len and (std.ascii.isAlphanumeric(b[at]) or b[at] == '+' or b[at] == '-' or b[at] == '.')) at += 1;
            if (at == start) return null;
        }
        // What follows a value.
        while (true) {
            if (depth == 0) return at;
            at = space(b, at);
            if (byte(b, at, open[depth - 1])) |after| {
                depth -= 1;
                at = after;
                continue;
            }
            at = byte(b, at, ',') orelse return null;
            if (open[depth - 1] == '}') at = key(b, at) orelse return null;
            break;
        }
    }
}

pub const Member = struct {
    /// The key without its quotation marks.
    key: []const u8,
    /// Its first byte tells what it is: { [ " t f n, or a number.
    value: []const u8,
};

/// The members of an object.
pub const Members = struct {
    text: []const u8,
    at: usize,
    begun: bool = false,

    /// Null if the text is no object.
    pub fn of(b: []const u8) ?Members {
        const from = space(b, 0);
        _ = byte(b, from, '{') orelse return null;
        // The whole of it is passed over first: what is read later is well formed.
        const end = value(b, from) orelse return null;
        if (space(b, end) != b.len) return null;
        return .{ .text = b[0 .. end - 1], .at = from + 1 };
    }

    pub fn next(m: *Members) ?Member {
        var at = space(m.text, m.at);
        if (at == m.text.len) return null;
        if (m.begun) at = space(m.text, at + 1); // the comma
        m.begun = true;
        const name = m.text[at + 1 .. string(m.text, at).? - 1];
        const from = key(m.text, at).?;
        m.at = value(m.text, from).?;
        return .{ .key = name, .value = m.text[from..m.at] };
    }
};

fn hex(b: []const u8, at: usize) ?u21 {
    if (at + 4 > b.len) return null;
    var v: u21 = 0;
    for (b[at..][0..4]) |c| v = v << 4 | (std.fmt.charToDigit(c, 16) catch return null);
    return v;
}

/// Appends a string without its escapes; false if the value is none. A half of a
/// surrogate pair becomes U+FFFD.
pub fn text(v: []const u8, out: *Buffer) bool {
    if ((string(v, 0) orelse return false) != v.len) return false;
    const b = v[1 .. v.len - 1];
    var at: usize = 0;
    while (at < b.len) : (at += 1) {
        if (b[at] != '\\') {
            out.putByte(b[at]);
            continue;
        }
        at += 1;
        var c: u21 = b[at];
        switch (b[at]) {
            '"', '\\', '/' => {},
            'b' => c = 0x08,
            'f' => c = 0x0c,
            'n' => c = '\n',
            'r' => c = '\r',
            't' => c = '\t',
            'u' => {
                c = hex(b, at + 1) orelse return false;
                at += 4;
                if (c >= 0xd800 and c < 0xe000) {
                    const low = if (std.mem.startsWith(u8, b[at + 1 ..], "\\u")) hex(b, at + 3) else null;
                    if (c < 0xdc00 and low != null and low.? >= 0xdc00 and low.? < 0xe000) {
                        c = 0x10000 + ((c - 0xd800) << 10) + (low.? - 0xdc00);
                        at += 6;
                    } else {
                        c = 0xfffd;
                    }
                }
            },
            else => return false,
        }
        out.putRune(c);
    }
    return true;
}
