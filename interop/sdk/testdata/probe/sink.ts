// Uses all of the SDK and appends what came of it.
import * as sdk from "./audit-host-sdk";
import { Answer, Batch, Buffer, Bytes, Members, register, Rows, Script, Sink, text } from "./audit-host-sdk";

const out = new Buffer();

function field(b: Bytes | null): void {
  out.putByte(0x20);
  if (b != null) out.put(b);
}

function number(v: u64): void {
  out.putByte(0x20);
  out.putNumber(v);
}

function hex(b: Bytes | null): void {
  out.putByte(0x20);
  if (b == null) return;
  for (let i: u32 = 0; i < b.length; i++) {
    const c = b.at(i);
    out.putByte(<u8>"0123456789abcdef".charCodeAt(c >> 4));
    out.putByte(<u8>"0123456789abcdef".charCodeAt(c & 15));
  }
}

function same(a: Bytes, b: Bytes): u64 {
  return a.length == b.length && memory.compare(a.ptr, b.ptr, a.length) == 0 ? 1 : 0;
}

function bytes(s: string): Buffer {
  const b = new Buffer();
  b.putText(s);
  return b;
}

const places = new sdk.Places();

class Probe extends Sink {
  private url: Buffer = new Buffer();
  private answer: Buffer = new Buffer();
  private sum: Buffer = new Buffer();
  private other: Buffer = new Buffer();
  private head: Buffer = new Buffer();
  private script: Script = new Script();
  private k: Buffer = bytes("k");
  private value: Buffer = bytes("value");
  private away: Buffer = bytes("GET http://203.0.113.1/\n");
  private none: Bytes = new Bytes();

  open(config: Bytes): Answer {
    this.url.clear();
    const m = new Members(config);
    while (m.next()) {
      if (!m.key.equals("url") || !text(m.value, this.url)) return Answer.badConfig("no url");
    }
    sdk.log(sdk.LOG_INFO, "opened");
    return Answer.ok(0);
  }

  private events(b: Batch): void {
    out.putText("batch");
    number(b.id);
    number(b.attempt);
    number(b.count);
    number(b.firstSeq);
    hex(b.queue);
    number(b.lines.length);
    out.putText("\n");
    for (let i: u32 = 0; i < b.count; i++) {
      const e = b.event(i);
      sdk.sha256(e.payload, this.sum);
      out.putText("event");
      number(e.seq);
      field(e.id);
      field(e.agent);
      field(e.type);
      field(e.timestamp);
      field(e.keyId);
      field(e.level);
      field(e.payload);
      hex(e.payloadHash);
      hex(e.digest);
      hex(e.signature);
      number(e.minted ? 1 : 0);
      number(same(this.sum, e.payloadHash));
      out.putText("\n");
    }
  }

  private small(): void {
    out.putText("kv");
    number(sdk.kvSet(this.k, this.value));
    number(sdk.kvGet(this.k, this.answer));
    field(this.answer);
    number(sdk.kvDelete(this.k));
    number(sdk.kvDelete(this.k));
    number(sdk.kvGet(this.k, this.answer));
    number(this.answer.length);
    number(sdk.kvSet(this.none, this.value));
    sdk.random(this.sum, 16);
    sdk.random(this.other, 16);
    out.putText("\nrandom");
    number(1 - same(this.sum, this.other));
    number(sdk.now() > 1700000000000000000 ? 1 : 0);
    out.putText("\n");
  }

  private database(b: Batch): void {
    const s = this.script;
    s.step(sdk.SQL_EXEC, "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b, c, d, e)", 0, 0);
    s.step(sdk.SQL_MANY, "INSERT INTO t (a, b, c, d, e) VALUES", 5, b.count);
    for (let i: u32 = 0; i < b.count; i++) {
      const e = b.event(i);
      s.int(<i64>e.seq);
      s.text(e.id);
      s.blob(e.payloadHash);
      s.null();
      s.float(1.5);
    }
    s.step(sdk.SQL_QUERY, "SELECT a, b, c, d, e, -a FROM t ORDER BY a", 0, 0);
    this.answer.clear();
    this.answer.reserve(65536);
    let r: Rows = s.run(sdk.SQL_WRITE, this.answer);
    out.putText("sql");
    number(r.status);
    while (r.nextRow()) {
      out.putText("\nrow");
      number(r.step);
      number(r.columns);
      number(<u64>r.nextInt());
      field(r.nextBytes());
      hex(r.nextBytes());
      const d = r.nextBytes();
      number(d == null ? 0 : 1);
      number(<u64>(r.nextFloat() * 2));
      number(<u64>-r.nextInt());
    }
    s.step(sdk.SQL_GUARD, "SELECT count(*) FROM t", 1, 1);
    s.int(0);
    r = s.run(sdk.SQL_READ, this.answer);
    out.putText("\nguard");
    number(r.status);
    number(r.nextRow() ? 1 : 0);
    number(<u64>r.nextInt());
    number(<u64>r.nextInt());
    s.step(sdk.SQL_QUERY, "SELEC 1", 0, 0);
    r = s.run(sdk.SQL_READ, this.answer);
    out.putText("\nwrong");
    number(r.status);
    field(r.bytes);
    out.putText("\n");
  }

  private request(b: Batch): void {
    this.head.clear();
    this.head.putText("POST ");
    this.head.put(this.url);
    this.head.putText("\nX-Probe: 1\n");
    this.answer.clear();
    this.answer.reserve(65536);
    let a = sdk.http(this.head, b.lines, this.answer);
    out.putText("http");
    number(a.status);
    number(a.code);
    number(a.flags);
    number(a.redirects);
    number(a.full);
    const found = a.field("x-answer");
    const none = a.field("x-none");
    out.putText(" " + (found == null ? "?" : found) + " " + (none == null ? "" : none));
    field(a.body);
    a = sdk.http(this.away, this.none, this.answer);
    out.putText("\nrefused");
    number(a.status);
    number(a.reason.length > 0 ? 1 : 0);
    out.putText("\n");
  }

  deliver(b: Batch): Answer {
    if (b.attempt == 99) b.event(b.count);
    if (b.attempt == 98) return Answer.busy(7, "locked").because(sdk.REASON_LOCKED);
    out.clear();
    this.events(b);
    this.small();
    this.database(b);
    this.request(b);
    sdk.metric(sdk.METRIC_RACES, 3);
    if (sdk.append(out) != sdk.STATUS_DONE) return Answer.retry(1000, "append");
    if (b.count < 2) return Answer.ok(b.count);
    sdk.verdict(1, sdk.OUTCOME_REJECT, "not “this” one");
    places.clear();
    let e = b.event(0);
    places.add(e.seq, e.digest, true);
    places.none();
    e = b.event(2);
    places.add(e.seq, e.digest, false);
    places.tell();
    return Answer.partial(b.count - 1);
  }

  flush(): Answer {
    sdk.log(sdk.LOG_WARN, "flushed");
    return Answer.ok(0);
  }

  close(): Answer {
    sdk.log(sdk.LOG_ERROR, "closed");
    return Answer.ok(0);
  }
}

register(new Probe());

export * from "./audit-host-sdk/exports";
