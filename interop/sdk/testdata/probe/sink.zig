//! Uses all of the SDK and appends what came of it.
const std = @import("std");
const audit = @import("audit_host");
const abi = audit.abi;

pub const panic = audit.panic;

var url = audit.Buffer{};
var out = audit.Buffer{};
var room = audit.Buffer{};
var cells = audit.Buffer{};
var head = audit.Buffer{};

fn field(b: []const u8) void {
    out.putByte(' ');
    out.put(b);
}

fn number(v: u64) void {
    out.putByte(' ');
    out.putNumber(v);
}

fn hex(b: []const u8) void {
    out.putByte(' ');
    for (b) |c| {
        out.putByte("0123456789abcdef"[c >> 4]);
        out.putByte("0123456789abcdef"[c & 15]);
    }
}

pub fn open(config: []const u8) audit.Answer {
    url.clear();
    var members = audit.json.Members.of(config) orelse return audit.badConfig("no url");
    while (members.next()) |m| {
        if (!std.mem.eql(u8, m.key, "url") or !audit.json.text(m.value, &url)) return audit.badConfig("no url");
    }
    audit.log(abi.log_info, "opened");
    return audit.ok(0);
}

fn events(b: *const audit.Batch) void {
    out.put("batch");
    number(b.id);
    number(b.attempt);
    number(b.count);
    number(b.first_seq);
    hex(b.queue);
    number(b.lines.len);
    out.put("\n");
    for (0..b.count) |i| {
        const e = b.event(i);
        out.put("event");
        number(e.seq);
        for ([_][]const u8{ e.id, e.agent, e.type, e.timestamp, e.key_id, e.level, e.payload }) |v| field(v);
        hex(e.payload_hash);
        hex(e.digest);
        hex(if (e.signature) |s| s else "");
        number(@intFromBool(e.minted));
        number(@intFromBool(std.mem.eql(u8, &audit.sha256(e.payload), e.payload_hash)));
        out.put("\n");
    }
}

fn small() void {
    out.put("kv");
    number(audit.kvSet("k", "value"));
    room.clear();
    const space = room.room(abi.max_kv_value);
    var r = audit.kvGet("k", space);
    number(r.status);
    field(r.bytes);
    number(audit.kvDelete("k"));
    number(audit.kvDelete("k"));
    r = audit.kvGet("k", space);
    number(r.status);
    number(r.bytes.len);
    number(audit.kvSet("", "x"));
    var a: [16]u8 = undefined;
    var b: [16]u8 = undefined;
    audit.random(&a);
    audit.random(&b);
    out.put("\nrandom");
    number(@intFromBool(!std.mem.eql(u8, &a, &b)));
    number(@intFromBool(audit.now() > 1_700_000_000_000_000_000));
    out.put("\n");
}

fn database(b: *const audit.Batch) void {
    cells.clear();
    for (0..b.count) |i| {
        const e = b.event(i);
        cells.putCell(audit.Cell.int(@intCast(e.seq)));
        cells.putCell(audit.Cell.text(e.id));
        cells.putCell(audit.Cell.blob(e.payload_hash));
        cells.putCell(.{});
        cells.putCell(audit.Cell.float(1.5));
    }
    const steps = [_]audit.Step{
        audit.Step.of(abi.sql_exec, "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b, c, d, e)", 0, &.{}),
        audit.Step.of(abi.sql_many, "INSERT INTO t (a, b, c, d, e) VALUES", 5, cells.cells()),
        audit.Step.of(abi.sql_query, "SELECT a, b, c, d, e, -a FROM t ORDER BY a", 0, &.{}),
    };
    room.clear();
    const space = room.room(65536);
    var r = audit.sql(abi.sql_write, &steps, space);
    out.put("sql");
    number(r.status);
    var rows = audit.Rows{ .rest = r.bytes };
    while (rows.nextRow()) {
        out.put("\nrow");
        number(rows.step);
        number(rows.columns);
        number(@intCast(rows.int()));
        field(rows.bytes() orelse "?");
        hex(rows.bytes() orelse "?");
        number(if (rows.bytes()) |v| v.len + 1 else 0);
        number(@intFromFloat(rows.float() * 2));
        number(@intCast(-rows.int()));
    }
    const none = [_]audit.Cell{audit.Cell.int(0)};
    r = audit.sql(abi.sql_read, &.{audit.Step.of(abi.sql_guard, "SELECT count(*) FROM t", 1, &none)}, space);
    rows = .{ .rest = r.bytes };
    out.put("\nguard");
    number(r.status);
    number(@intFromBool(rows.nextRow()));
    number(@intCast(rows.int()));
    number(@intCast(rows.int()));
    r = audit.sql(abi.sql_read, &.{audit.Step.of(abi.sql_query, "SELEC 1", 0, &.{})}, space);
    out.put("\nwrong");
    number(r.status);
    field(r.bytes);
    out.put("\n");
}

fn request(b: *const audit.Batch) void {
    head.clear();
    head.put("POST ");
    head.put(url.bytes());
    head.put("\nX-Probe: 1\n");
    room.clear();
    const space = room.room(65536);
    var a = audit.http(head.bytes(), b.lines, space);
    out.put("http");
    number(a.status);
    number(a.code);
    number(a.flags);
    number(a.redirects);
    number(a.full);
    field(a.field("x-answer") orelse "?");
    field(a.field("x-none") orelse "");
    field(a.body);
    a = audit.http("GET http://203.0.113.1/\n", "", space);
    out.put("\nrefused");
    number(a.status);
    number(@intFromBool(a.reason.len > 0));
    out.put("\n");
}

pub fn deliver(b: audit.Batch) audit.Answer {
    if (b.attempt == 99) _ = b.event(b.count);
    if (b.attempt == 98) return audit.busy(7, "locked").because(abi.reason_locked);
    out.clear();
    events(&b);
    small();
    database(&b);
    request(&b);
    audit.metric(abi.metric_races, 3);
    if (audit.append(out.bytes()) != abi.status_done) return audit.retry(1000, "append");
    if (b.count < 2) return audit.ok(b.count);
    audit.verdict(1, abi.outcome_reject, "not “this” one");
    const first = b.event(0);
    const last = b.event(2);
    audit.places(&.{
        .{ .sequence = first.seq, .flags = abi.place_stored_now, .row_hash = first.digest.* },
        .{},
        .{ .sequence = last.seq, .row_hash = last.digest.* },
    });
    return audit.partial(b.count - 1);
}

pub fn flush() audit.Answer {
    audit.log(abi.log_warn, "flushed");
    return audit.ok(0);
}

pub fn close() audit.Answer {
    audit.log(abi.log_error, "closed");
    return audit.ok(0);
}

comptime {
    audit.sink(@This());
}
