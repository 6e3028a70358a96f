//! Sinks for audit-host in Zig 0.11, without std's allocators: ABI 1.
//!
//! A sink is a file with two functions and one line that exports them:
//!
//!     const audit = @import("audit_host");
//!     pub const panic = audit.panic;
//!
//!     pub fn open(config: []const u8) audit.Answer { ... return audit.ok(0); }
//!     pub fn deliver(batch: audit.Batch) audit.Answer { ... return audit.ok(batch.count); }
//!
//!     comptime { audit.sink(@This()); }
//!
//! and, where they are wanted, `pub fn flush() audit.Answer` and `pub fn close()`.
//!
//! Guaranteed: a batch is checked once, whole, before deliver is called, and a
//! malformed one panics; the module imports those host functions that are called
//! and no others, but for fd_write, by which a panic tells what it is. Memory
//! comes from memory.grow alone and is used again, so that it does not creep.
//!
//! Not guaranteed: that a wild pointer traps. Address 0 is memory like any other.
const std = @import("std");

/// Names and numbers of the ABI.
pub const abi = @import("abi.zig");

fn address(p: anytype) u32 {
    return @intCast(@intFromPtr(p));
}

fn number(comptime T: type, b: []const u8, at: u32) T {
    return @as(*align(1) const T, @ptrCast(b[at..][0..@sizeOf(T)])).*;
}

// Memory

const page: u32 = 65536;
const most: u32 = 0xffff_0000;

/// A free block of whole pages, written into it. The list is in order of address,
/// and neighbours are one block.
const Free = struct {
    next: ?*Free,
    size: u32,
};

var free_list: ?*Free = null;

/// Returns at least `size` bytes, in whole pages.
fn pages(size: u32) ?[]align(8) u8 {
    if (size > most) return null;
    const want = @max((size +| (page - 1)) & ~(page - 1), page);
    var at = &free_list;
    while (at.*) |b| : (at = &b.next) {
        if (b.size < want and b.next == null and address(b) + b.size == @wasmMemorySize(0) * page) {
            // The last block ends the memory: only what is missing is grown.
            if (@wasmMemoryGrow(0, (want - b.size) / page) < 0) return null;
            b.size = want;
        }
        if (b.size < want) continue;
        if (b.size == want) {
            at.* = b.next;
        } else {
            const rest: *Free = @ptrFromInt(address(b) + want);
            rest.* = .{ .next = b.next, .size = b.size - want };
            at.* = rest;
        }
        return @as([*]align(8) u8, @ptrFromInt(address(b)))[0..want];
    }
    const old = @wasmMemoryGrow(0, want / page);
    if (old < 0) return null;
    return @as([*]align(8) u8, @ptrFromInt(@as(u32, @intCast(old)) * page))[0..want];
}

/// Gives back what pages returned.
fn release(block: []align(8) u8) void {
    if (block.len == 0) return;
    var at = &free_list;
    var before: ?*Free = null;
    while (at.*) |b| : (at = &b.next) {
        if (address(b) > address(block.ptr)) break;
        before = b;
    }
    const b: *Free = @ptrCast(block.ptr);
    b.* = .{ .next = at.*, .size = @intCast(block.len) };
    at.* = b;
    if (b.next) |next| if (address(b) + b.size == address(next)) {
        b.size += next.size;
        b.next = next.next;
    };
    if (before) |last| if (address(last) + last.size == address(b)) {
        last.size += b.size;
        last.next = b.next;
    };
}

/// Bytes that grow as they are written to. It holds whole pages: have few, in
/// globals, and clear them for each batch. Without memory it panics, and the host
/// delivers the batch to a fresh instance.
pub const Buffer = struct {
    block: []align(8) u8 = &.{},
    len: u32 = 0,

    /// The bytes that were written.
    pub fn bytes(b: *const Buffer) []u8 {
        return b.block[0..b.len];
    }

    pub fn clear(b: *Buffer) void {
        b.len = 0;
    }

    /// Makes room for more bytes and returns all that there is, to be written to by
    /// the host.
    pub fn room(b: *Buffer, more: u32) []u8 {
        if (b.block.len - b.len < more) {
            const size: u32 = @intCast(b.block.len);
            const block = pages(@max(b.len + more, @min(size +| size / 2, most))) orelse @panic("out of memory");
            @memcpy(block[0..b.len], b.bytes());
            release(b.block);
            b.block = block;
        }
        return b.block[b.len..];
    }

    /// Appends bytes, which do not lie in this buffer.
    pub fn put(b: *Buffer, v: []const u8) void {
        @memcpy(b.room(@intCast(v.len))[0..v.len], v);
        b.len += @intCast(v.len);
    }

    pub fn putByte(b: *Buffer, v: u8) void {
        b.room(1)[0] = v;
        b.len += 1;
    }

    pub fn putNumber(b: *Buffer, v: u64) void {
        var digits: u64 = 1;
        while (v / digits >= 10) digits *= 10;
        while (digits > 0) : (digits /= 10) b.putByte(@intCast('0' + v / digits % 10));
    }

    /// Appends a code point in UTF-8.
    pub fn putRune(b: *Buffer, c: u21) void {
        var utf8: [4]u8 = undefined;
        b.put(utf8[0 .. std.unicode.utf8Encode(c, &utf8) catch @panic("no code point")]);
    }

    pub fn putCell(b: *Buffer, c: Cell) void {
        b.put(std.mem.asBytes(&c));
    }

    /// The cells of a buffer that holds nothing else.
    pub fn cells(b: *const Buffer) []const Cell {
        return @as([*]const Cell, @ptrCast(b.block.ptr))[0 .. b.len / @sizeOf(Cell)];
    }
};

// The batch frame

/// A batch that was checked. Its bytes are valid until deliver returns.
pub const Batch = struct {
    frame: []const u8,
    header_size: u32,
    entry_size: u32,
    /// The number of events.
    count: u32,
    /// 1 for the first delivery of this batch.
    attempt: u32,
    /// The same for every attempt.
    id: u64,
    /// The position of the first event in the queue.
    first_seq: u64,
    /// The id of the queue, 16 bytes.
    queue: []const u8,
    /// The payloads: one canonical JSON event per line, each ended by one line feed.
    lines: []const u8,

    /// Checks a frame; null if any span of any event lies outside it. The sizes of
    /// the header and of an entry are the frame's own; what is beyond those known
    /// here is ignored.
    pub fn parse(f: []const u8) ?Batch {
        if (f.len < abi.header_size or number(u32, f, abi.header_magic) != abi.frame_magic) return null;
        const header: u32 = number(u16, f, abi.header_header_size);
        const size: u32 = number(u16, f, abi.header_entry_size);
        if (header < abi.header_size or size < abi.entry_size) return null;
        const count = number(u32, f, abi.header_count);
        // 64 bits, so that no sum of two offsets wraps.
        const total: u64 = number(u32, f, abi.header_total);
        const index: u64 = header + @as(u64, count) * size;
        const from: u64 = number(u32, f, abi.header_payload);
        const length: u64 = number(u32, f, abi.header_payload + 4);
        if (total != f.len or index > total or from < index or from + length != total) return null;
        for (0..count) |i| {
            const entry = f[header + i * size ..][0..abi.entry_size];
            var at: u32 = abi.entry_id;
            while (at <= abi.entry_payload) : (at += 8) {
                const start: u64 = number(u32, entry, at);
                const line_feed = @intFromBool(at == abi.entry_payload);
                if (start < index or start + number(u32, entry, at + 4) + line_feed > total) return null;
            }
        }
        return .{
            .frame = f,
            .header_size = header,
            .entry_size = size,
            .count = count,
            .attempt = number(u32, f, abi.header_attempt),
            .id = number(u64, f, abi.header_batch_id),
            .first_seq = number(u64, f, abi.header_first_seq),
            .queue = f[abi.header_queue..abi.header_size],
            .lines = f[@intCast(from)..],
        };
    }

    /// Event i; panics from count on.
    pub fn event(b: *const Batch, i: u32) Event {
        if (i >= b.count) @panic("event beyond the end of the batch");
        const x = b.frame[b.header_size + i * b.entry_size ..][0..abi.entry_size];
        const flags = number(u32, x, abi.entry_flags);
        return .{
            .seq = number(u64, x, abi.entry_seq),
            .id = b.span(x, abi.entry_id),
            .agent = b.span(x, abi.entry_agent),
            .type = b.span(x, abi.entry_type),
            .timestamp = b.span(x, abi.entry_timestamp),
            .minted = flags & abi.flag_minted != 0,
            .key_id = b.span(x, abi.entry_key_id),
            .level = b.span(x, abi.entry_level),
            .payload = b.span(x, abi.entry_payload),
            .payload_hash = x[abi.entry_payload_hash..][0..abi.hash_size],
            .digest = x[abi.entry_digest..][0..abi.hash_size],
            .signature = if (flags & abi.flag_signed != 0) x[abi.entry_signature..][0..abi.signature_size] else null,
        };
    }

    fn span(b: *const Batch, entry: []const u8, at: u32) []const u8 {
        return b.frame[number(u32, entry, at)..][0..number(u32, entry, at + 4)];
    }
};

/// One event of a batch.
pub const Event = struct {
    /// The position in the queue.
    seq: u64,
    /// The idempotency key.
    id: []const u8,
    /// Who was refused.
    agent: []const u8,
    /// For example governance.refusal.
    type: []const u8,
    /// RFC 3339.
    timestamp: []const u8,
    /// The timestamp was stamped by the host.
    minted: bool,
    /// The name of the signing key, empty for an unsigned event.
    key_id: []const u8,
    /// The attestation level.
    level: []const u8,
    /// The canonical JSON, without its line feed.
    payload: []const u8,
    /// The SHA-256 of the payload.
    payload_hash: *const [abi.hash_size]u8,
    /// The event digest.
    digest: *const [abi.hash_size]u8,
    /// Null for an unsigned event.
    signature: ?*const [abi.signature_size]u8,
};

// The host's functions

/// Says abi.outcome_retry or outcome_reject of an event that was not stored, once
/// for each, beside partial. abi.max_verdict_text bytes of the text are kept.
pub fn verdict(index: u32, outcome: u32, why: []const u8) void {
    abi.import.verdict(index, outcome, address(why.ptr), @intCast(why.len));
}

/// Where a sink that keeps events in an order, as a ledger does, has one. The default
/// is that of an event that was not stored.
pub const Place = extern struct {
    /// From 1.
    sequence: u64 = 0,
    /// abi.place_stored_now, or 0 for an event that was there before.
    flags: u32 = 0,
    zero: u32 = 0,
    /// Covers the row and those before it.
    row_hash: [abi.hash_size]u8 = [_]u8{0} ** abi.hash_size,
};

comptime {
    if (@sizeOf(Place) != abi.place_size) @compileError("a place is not the ABI's");
}

/// Says where the sink keeps the events of the batch on disk, one place for each in
/// their order, once in a deliver that answers ok or partial.
pub fn places(list: []const Place) void {
    abi.import.places(address(list.ptr), @intCast(list.len));
}

/// Writes a line to the host's log, at abi.log_info or another level.
pub fn log(level: u32, text: []const u8) void {
    abi.import.log(level, address(text.ptr), @intCast(text.len));
}

/// Adds to a counter, abi.metric_races.
pub fn metric(id: u32, n: u64) void {
    abi.import.metric(id, n);
}

pub fn sha256(data: []const u8) [abi.hash_size]u8 {
    var out: [abi.hash_size]u8 = undefined;
    abi.import.sha256(address(data.ptr), @intCast(data.len), address(&out));
    return out;
}

/// Adds a record of whole lines, each ended by a line feed, to the file of the
/// grant, and returns a status. Answer busy to any but abi.status_done. Capability
/// append.
pub fn append(record: []const u8) u32 {
    return @intCast(abi.import.append(address(record.ptr), @intCast(record.len)) >> 32);
}

/// Nanoseconds since 1970, UTC. Capability now.
pub fn now() u64 {
    return abi.import.now();
}

/// Fills out with random bytes. Capability random.
pub fn random(out: []u8) void {
    abi.import.random(address(out.ptr), @intCast(out.len));
}

/// A status, and the part of the caller's memory that was written.
pub const Result = struct {
    status: u32,
    bytes: []u8,

    fn of(answer: u64, out: []u8) Result {
        return .{ .status = @intCast(answer >> 32), .bytes = out[0..@min(@as(u32, @truncate(answer)), out.len)] };
    }
};

/// Reads a key into out; abi.max_kv_value bytes hold any value. Capability kv, as
/// for the next two.
pub fn kvGet(key: []const u8, out: []u8) Result {
    var r = Result.of(abi.import.kv_get(address(key.ptr), @intCast(key.len), address(out.ptr), @intCast(out.len)), out);
    if (r.status != abi.status_done) r.bytes.len = 0;
    return r;
}

/// Sets a key and returns a status. What a call has set is kept if the call ends
/// in OK or PARTIAL, all of it together.
pub fn kvSet(key: []const u8, value: []const u8) u32 {
    return @intCast(abi.import.kv_set(address(key.ptr), @intCast(key.len), address(value.ptr), @intCast(value.len)) >> 32);
}

/// Removes a key and returns a status; abi.status_absent if there is none.
pub fn kvDelete(key: []const u8) u32 {
    return @intCast(abi.import.kv_delete(address(key.ptr), @intCast(key.len)) >> 32);
}

/// What a server answered. Unless status is abi.status_done there is only reason,
/// for a person.
pub const HttpAnswer = struct {
    status: u32,
    reason: []const u8 = "",
    /// HTTP's status.
    code: u32 = 0,
    /// abi.http_cut, http_withheld.
    flags: u32 = 0,
    redirects: u32 = 0,
    /// The length of the body before it was cut.
    full: u32 = 0,
    /// Lines "name: value", the names in lower case.
    header: []const u8 = "",
    body: []const u8 = "",

    /// The first field of a name, which is given in lower case.
    pub fn field(a: *const HttpAnswer, name: []const u8) ?[]const u8 {
        var lines = std.mem.splitScalar(u8, a.header, '\n');
        while (lines.next()) |line| {
            if (line.len > name.len and line[name.len] == ':' and std.mem.startsWith(u8, line, name))
                return std.mem.trimLeft(u8, line[name.len + 1 ..], " ");
        }
        return null;
    }
};

/// Makes a request. head is a line "METHOD URL" and a line "Name: value" for each
/// field, each ended by a line feed; {{secret NAME}} in a value is replaced by the
/// host. The answer is written to out. Capability http.
pub fn http(head: []const u8, body: []const u8, out: []u8) HttpAnswer {
    const r = Result.of(abi.import.http(address(head.ptr), @intCast(head.len), address(body.ptr), @intCast(body.len), address(out.ptr), @intCast(out.len)), out);
    if (r.status != abi.status_done) return .{ .status = r.status, .reason = r.bytes };
    const rest = r.bytes[abi.http_answer_size..];
    const header = number(u32, r.bytes, 12);
    return .{
        .status = r.status,
        .code = number(u32, r.bytes, 0),
        .flags = number(u32, r.bytes, 4),
        .redirects = number(u32, r.bytes, 8),
        .full = number(u32, r.bytes, 20),
        .header = rest[0..header],
        .body = rest[header..][0..number(u32, r.bytes, 16)],
    };
}

// sql

/// A cell of a step. The bytes of a text or blob must not change before sql
/// returns.
pub const Cell = extern struct {
    type: u32 = abi.sql_null,
    length: u32 = 0,
    value: u64 = 0,

    pub fn int(v: i64) Cell {
        return .{ .type = abi.sql_int, .value = @bitCast(v) };
    }
    pub fn float(v: f64) Cell {
        return .{ .type = abi.sql_float, .value = @bitCast(v) };
    }
    pub fn text(v: []const u8) Cell {
        return .{ .type = abi.sql_text, .length = @intCast(v.len), .value = address(v.ptr) };
    }
    pub fn blob(v: []const u8) Cell {
        return .{ .type = abi.sql_blob, .length = @intCast(v.len), .value = address(v.ptr) };
    }
};

/// A step of one of the kinds abi.sql_exec, sql_query, sql_guard and sql_many, with
/// rows x columns cells.
pub const Step = extern struct {
    kind: u32,
    text: u32,
    length: u32,
    columns: u32,
    rows: u32,
    cells: u32,

    pub fn of(kind: u32, text: []const u8, columns: u32, cells: []const Cell) Step {
        return .{
            .kind = kind,
            .text = address(text.ptr),
            .length = @intCast(text.len),
            .columns = columns,
            .rows = if (columns == 0) 0 else @as(u32, @intCast(cells.len)) / columns,
            .cells = address(cells.ptr),
        };
    }
};

comptime {
    if (@sizeOf(Cell) != abi.sql_cell_size or @sizeOf(Step) != abi.sql_step_size) @compileError("a step or cell is not the ABI's");
}

/// Runs steps as one transaction, of mode abi.sql_read or sql_write. The bytes of
/// the result are rows, or the text of an error. Capability sql.
pub fn sql(mode: u32, steps: []const Step, out: []u8) Result {
    return Result.of(abi.import.sql(mode, address(steps.ptr), @intCast(steps.len), address(out.ptr), @intCast(out.len)), out);
}

/// The rows of a result: nextRow, then its cells from left to right.
pub const Rows = struct {
    rest: []const u8,
    /// The step and the number of columns of the row.
    step: u32 = 0,
    columns: u32 = 0,
    left: u32 = 0,

    const Found = struct { type: u32 = abi.sql_null, bytes: []const u8 = "" };

    fn cell(r: *Rows) Found {
        if (r.left == 0 or r.rest.len < 8) {
            r.left = 0;
            return .{};
        }
        r.left -= 1;
        const kind = number(u32, r.rest, 0);
        const n = @min(number(u32, r.rest, 4), r.rest.len - 8);
        const value = r.rest[8..][0..n];
        r.rest = r.rest[8 + n ..];
        return .{ .type = kind, .bytes = value };
    }

    /// Goes to the next row. What was not read of the row before is passed over.
    pub fn nextRow(r: *Rows) bool {
        while (r.left > 0) _ = r.cell();
        if (r.rest.len < 8) return false;
        r.step = number(u32, r.rest, 0);
        r.columns = number(u32, r.rest, 4);
        r.left = r.columns;
        r.rest = r.rest[8..];
        return true;
    }

    /// The next cell as an integer; 0 if it is none.
    pub fn int(r: *Rows) i64 {
        const c = r.cell();
        return if (c.type == abi.sql_int and c.bytes.len == 8) number(i64, c.bytes, 0) else 0;
    }

    /// The next cell as a floating-point number; 0 if it is none.
    pub fn float(r: *Rows) f64 {
        const c = r.cell();
        return if (c.type == abi.sql_float and c.bytes.len == 8) number(f64, c.bytes, 0) else 0;
    }

    /// The next cell as a text or blob; null if it is neither.
    pub fn bytes(r: *Rows) ?[]const u8 {
        const c = r.cell();
        return if (c.type == abi.sql_text or c.type == abi.sql_blob) c.bytes else null;
    }
};

// Answers

/// An outcome with its argument, and what is said about the batch.
pub const Answer = struct {
    outcome: u32,
    argument: u32,
    message: []const u8 = "",
    /// abi.reason_locked or another.
    reason: u32 = abi.reason_other,

    /// Adds a reason to an answer that says that something went wrong: metrics and
    /// readiness go by it, and the text is for people.
    pub fn because(a: Answer, reason: u32) Answer {
        var b = a;
        b.reason = reason;
        return b;
    }
};

/// All n events are stored. From open, flush and close: ok(0).
pub fn ok(n: u32) Answer {
    return .{ .outcome = abi.outcome_ok, .argument = n };
}
/// n events are stored, each of the others got a verdict.
pub fn partial(n: u32) Answer {
    return .{ .outcome = abi.outcome_partial, .argument = n };
}
/// Nothing was stored, the same batch is wanted again after ms.
pub fn retry(ms: u32, why: []const u8) Answer {
    return .{ .outcome = abi.outcome_retry, .argument = ms, .message = why };
}
/// Nothing was stored: what the sink writes to is not to be had now.
pub fn busy(ms: u32, why: []const u8) Answer {
    return .{ .outcome = abi.outcome_busy, .argument = ms, .message = why };
}
/// Nothing was stored, and never will be.
pub fn reject(why: []const u8) Answer {
    return .{ .outcome = abi.outcome_reject, .argument = 0, .message = why };
}
/// The configuration is refused. From open only.
pub fn badConfig(why: []const u8) Answer {
    return .{ .outcome = abi.outcome_bad_config, .argument = 0, .message = why };
}

fn finish(a: Answer) u64 {
    if (a.message.len > 0) verdict(abi.whole_batch, a.outcome, a.message);
    return @as(u64, a.reason) << 48 | @as(u64, a.outcome) << 32 | a.argument;
}

// Exports

var inbox = Buffer{};

fn sent(n: u32) []const u8 {
    return inbox.block[0..n];
}

fn reserve(n: u32) callconv(.C) u32 {
    if (n > abi.max_frame) return 0;
    if (inbox.block.len == 0 or inbox.block.len < n) {
        // The old one goes first, so that both need not fit; some more than asked
        // for, so that slowly growing batches do not move each time.
        release(inbox.block);
        inbox.block = pages(n + n / 4) orelse pages(n) orelse &.{};
        if (inbox.block.len == 0) return 0;
    }
    return address(inbox.block.ptr);
}

/// Exports the functions open and deliver of a file, and flush and close if it has
/// them.
pub fn sink(comptime S: type) void {
    const exports = struct {
        fn marker() callconv(.C) void {}
        fn open(n: u32) callconv(.C) u64 {
            return finish(S.open(sent(n)));
        }
        fn deliver(n: u32) callconv(.C) u64 {
            // The host wrote the frame, so no repetition mends it, and a panic is seen.
            return finish(S.deliver(Batch.parse(sent(n)) orelse @panic("malformed batch frame")));
        }
        fn flush() callconv(.C) u64 {
            return finish(S.flush());
        }
        fn close() callconv(.C) u64 {
            return finish(S.close());
        }
    };
    @export(exports.marker, .{ .name = "audit_abi_1" });
    @export(reserve, .{ .name = "audit_reserve" });
    @export(exports.open, .{ .name = "audit_open" });
    @export(exports.deliver, .{ .name = "audit_deliver" });
    if (@hasDecl(S, "flush")) @export(exports.flush, .{ .name = "audit_flush" });
    if (@hasDecl(S, "close")) @export(exports.close, .{ .name = "audit_close" });
}

extern "wasi_snapshot_preview1" fn fd_write(fd: u32, vectors: *const [3][2]u32, n: u32, written: *u32) u32;

/// Ends in a trap, and tells standard error why before that, where the host keeps
/// it for the crash record.
pub fn panic(message: []const u8, _: ?*std.builtin.StackTrace, _: ?usize) noreturn {
    @setCold(true);
    const begin = "panic: ";
    const end = "\n";
    const vectors = [3][2]u32{
        .{ address(begin), begin.len },
        .{ address(message.ptr), @truncate(message.len) },
        .{ address(end), end.len },
    };
    var written: u32 = 0;
    _ = fd_write(2, &vectors, 3, &written);
    @trap();
}

pub const json = @import("json.zig");
