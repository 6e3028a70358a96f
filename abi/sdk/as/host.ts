// The host's functions. Statuses are those of abi.ts.
import * as abi from "./abi";
import { Buffer, Bytes } from "./bytes";

// Where texts are encoded.
const scratch = new Buffer();

function encode(text: string): Buffer {
  scratch.clear();
  scratch.putText(text);
  return scratch;
}

function status(answer: u64): u32 {
  return <u32>(answer >> 32);
}

/** The host has written into a buffer: as much as it says, and no more than there is room. */
function written(out: Buffer, answer: u64): u32 {
  out.length = min(<u32>answer, out.size);
  return status(answer);
}

/**
 * Says OUTCOME_RETRY or OUTCOME_REJECT of an event that was not stored, once for
 * each, beside Answer.partial. MAX_VERDICT_TEXT bytes of the text are kept.
 */
export function verdict(index: u32, outcome: u32, why: string): void {
  const b = encode(why);
  abi.import_verdict(index, outcome, <u32>b.ptr, b.length);
}

/**
 * Where a sink that keeps events in an order, as a ledger does, has those of a
 * batch: one place for each event, in their order.
 */
export class Places {
  private list: Buffer = new Buffer();

  clear(): void {
    this.list.clear();
  }

  /** Adds that of an event: its sequence, from 1, and the hash of its row, 32 bytes, which covers those before it. */
  add(sequence: u64, rowHash: Bytes, storedNow: bool): void {
    if (rowHash.length != abi.HASH_SIZE) throw new RangeError("a row hash has 32 bytes");
    this.list.putU64(sequence);
    this.list.putU32(storedNow ? abi.PLACE_STORED_NOW : 0);
    this.list.putU32(0);
    this.list.put(rowHash);
  }

  /** Adds that of an event that was not stored. */
  none(): void {
    for (let i: u32 = 0; i < abi.PLACE_SIZE; i += 8) this.list.putU64(0);
  }

  /** Tells the host, once in a deliver that answers Answer.ok or Answer.partial. */
  tell(): void {
    abi.import_places(<u32>this.list.ptr, this.list.length / abi.PLACE_SIZE);
  }
}

/** Writes a line to the host's log, at LOG_INFO or another level. */
export function log(level: u32, text: string): void {
  const b = encode(text);
  abi.import_log(level, <u32>b.ptr, b.length);
}

/** Adds to a counter, METRIC_RACES. */
export function metric(id: u32, n: u64): void {
  abi.import_metric(id, n);
}

/** Writes the hash of data to out, HASH_SIZE bytes. */
export function sha256(data: Bytes, out: Buffer): void {
  out.clear();
  out.reserve(abi.HASH_SIZE);
  abi.import_sha256(<u32>data.ptr, data.length, <u32>out.ptr);
  out.length = abi.HASH_SIZE;
}

/**
 * Adds a record of whole lines, each ended by a line feed, to the file of the
 * grant, and returns a status. Answer Answer.busy to any but STATUS_DONE.
 * Capability append.
 */
export function append(record: Bytes): u32 {
  return status(abi.import_append(<u32>record.ptr, record.length));
}

/** Nanoseconds since 1970, UTC. Capability now. */
export function now(): u64 {
  return abi.import_now();
}

/** Fills out with n random bytes. Capability random. */
export function random(out: Buffer, n: u32): void {
  out.clear();
  out.reserve(n);
  abi.import_random(<u32>out.ptr, n);
  out.length = n;
}

/** Reads a key into out, and returns a status. Capability kv, as for the next two. */
export function kvGet(key: Bytes, out: Buffer): u32 {
  out.clear();
  out.reserve(abi.MAX_KV_VALUE);
  const s = written(out, abi.import_kv_get(<u32>key.ptr, key.length, <u32>out.ptr, out.size));
  if (s != abi.STATUS_DONE) out.clear();
  return s;
}

/** Sets a key. What a call has set is kept if the call ends in OK or PARTIAL, all of it together. */
export function kvSet(key: Bytes, value: Bytes): u32 {
  return status(abi.import_kv_set(<u32>key.ptr, key.length, <u32>value.ptr, value.length));
}

/** Removes a key; STATUS_ABSENT if there is none. */
export function kvDelete(key: Bytes): u32 {
  return status(abi.import_kv_delete(<u32>key.ptr, key.length));
}

/** What a server answered. Unless status is STATUS_DONE there is only reason, for a person. */
export class HttpAnswer {
  status: u32 = 0;
  reason: Bytes = new Bytes();
  /** HTTP's status. */
  code: u32 = 0;
  /** HTTP_CUT, HTTP_WITHHELD. */
  flags: u32 = 0;
  redirects: u32 = 0;
  /** The length of the body before it was cut. */
  full: u32 = 0;
  /** Lines "name: value", the names in lower case. */
  header: Bytes = new Bytes();
  body: Bytes = new Bytes();

  /** The first field of a name, which is given in lower case; null if there is none. */
  field(name: string): string | null {
    const lines = this.header.toString().split("\n");
    for (let i = 0; i < lines.length; i++) {
      if (lines[i].startsWith(name + ":")) return lines[i].substring(name.length + 1).trim();
    }
    return null;
  }
}

/**
 * Makes a request. head is a line "METHOD URL" and a line "Name: value" for each
 * field, each ended by a line feed; {{secret NAME}} in a value is replaced by the
 * host. The answer lies in out, for which room is reserved before. Capability
 * http.
 */
export function http(head: Bytes, body: Bytes, out: Buffer): HttpAnswer {
  const a = new HttpAnswer();
  a.status = written(out, abi.import_http(<u32>head.ptr, head.length, <u32>body.ptr, body.length, <u32>out.ptr, out.size));
  if (a.status != abi.STATUS_DONE) {
    a.reason = new Bytes(out.ptr, out.length);
    return a;
  }
  const p = out.ptr;
  if (out.length < abi.HTTP_ANSWER_SIZE) throw new Error("malformed http answer");
  const header = load<u32>(p + 12);
  const length = load<u32>(p + 16);
  if (<u64>header + length > <u64>(out.length - abi.HTTP_ANSWER_SIZE)) throw new Error("malformed http answer");
  a.code = load<u32>(p);
  a.flags = load<u32>(p + 4);
  a.redirects = load<u32>(p + 8);
  a.full = load<u32>(p + 20);
  a.header = new Bytes(p + abi.HTTP_ANSWER_SIZE, header);
  a.body = new Bytes(p + abi.HTTP_ANSWER_SIZE + header, length);
  return a;
}
