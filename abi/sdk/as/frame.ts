// The batch frame.
import * as abi from "./abi";
import { Bytes } from "./bytes";

/** One event: a window onto the frame, which Batch.event moves. */
export class Event {
  /** The position in the queue. */
  seq: u64 = 0;
  /** The idempotency key. */
  id: Bytes = new Bytes();
  /** Who was refused. */
  agent: Bytes = new Bytes();
  /** For example governance.refusal. */
  type: Bytes = new Bytes();
  /** RFC 3339. */
  timestamp: Bytes = new Bytes();
  /** The name of the signing key, empty for an unsigned event. */
  keyId: Bytes = new Bytes();
  /** The attestation level. */
  level: Bytes = new Bytes();
  /** The canonical JSON, without its line feed. */
  payload: Bytes = new Bytes();
  /** The SHA-256 of the payload, 32 bytes. */
  payloadHash: Bytes = new Bytes();
  /** The event digest, 32 bytes. */
  digest: Bytes = new Bytes();
  /** 64 bytes, or none for an unsigned event. */
  signature: Bytes = new Bytes();
  /** The timestamp was stamped by the host. */
  minted: bool = false;
}

function span(to: Bytes, frame: usize, entry: usize, at: u32): void {
  to.ptr = frame + load<u32>(entry + at);
  to.length = load<u32>(entry + at + 4);
}

function fixed(to: Bytes, ptr: usize, length: u32): void {
  to.ptr = ptr;
  to.length = length;
}

/** A batch that was checked. Its bytes are valid until deliver returns. */
export class Batch {
  /** The number of events. */
  count: u32 = 0;
  /** The payloads: one canonical JSON event per line, each ended by one line feed. */
  lines: Bytes = new Bytes();
  /** The id of the queue that the positions belong to, 16 bytes. */
  queue: Bytes = new Bytes();
  private frame: usize = 0;
  private entries: usize = 0;
  private entrySize: u32 = 0;
  private current: Event = new Event();

  /**
   * Checks a frame; false if any span of any event lies outside it. The sizes of
   * the header and of an entry are the frame's own; what is beyond those known here
   * is ignored.
   */
  parse(frame: usize, length: u32): bool {
    if (length < abi.HEADER_SIZE || load<u32>(frame + abi.HEADER_MAGIC) != abi.FRAME_MAGIC) return false;
    const header: u32 = load<u16>(frame + abi.HEADER_HEADER_SIZE);
    const entrySize: u32 = load<u16>(frame + abi.HEADER_ENTRY_SIZE);
    if (header < abi.HEADER_SIZE || entrySize < abi.ENTRY_SIZE) return false;
    const count = load<u32>(frame + abi.HEADER_COUNT);
    // 64 bits, so that no sum of two offsets wraps.
    const total = <u64>load<u32>(frame + abi.HEADER_TOTAL);
    const index = <u64>header + <u64>count * entrySize;
    const lines = <u64>load<u32>(frame + abi.HEADER_PAYLOAD);
    const size = <u64>load<u32>(frame + abi.HEADER_PAYLOAD + 4);
    if (total != length || index > total || lines < index || lines + size != total) return false;
    for (let i: u32 = 0; i < count; i++) {
      const entry = frame + header + i * entrySize;
      for (let at = abi.ENTRY_ID; at <= abi.ENTRY_PAYLOAD; at += 8) {
        const from = <u64>load<u32>(entry + at);
        const end = from + load<u32>(entry + at + 4) + (at == abi.ENTRY_PAYLOAD ? 1 : 0);
        if (from < index || end > total) return false;
      }
    }
    this.frame = frame;
    this.entries = frame + header;
    this.entrySize = entrySize;
    this.count = count;
    fixed(this.lines, frame + <usize>lines, <u32>size);
    fixed(this.queue, frame + abi.HEADER_QUEUE, abi.HEADER_SIZE - abi.HEADER_QUEUE);
    return true;
  }

  /** The same for every attempt. */
  get id(): u64 {
    return load<u64>(this.frame + abi.HEADER_BATCH_ID);
  }

  /** 1 for the first delivery of this batch. */
  get attempt(): u32 {
    return load<u32>(this.frame + abi.HEADER_ATTEMPT);
  }

  /** The position of the first event in the queue. */
  get firstSeq(): u64 {
    return load<u64>(this.frame + abi.HEADER_FIRST_SEQ);
  }

  /** Event i; throws from count on. It is valid until the next call. */
  event(i: u32): Event {
    if (i >= this.count) throw new RangeError("event beyond the end of the batch");
    const f = this.frame;
    const x = this.entries + i * this.entrySize;
    const e = this.current;
    e.seq = load<u64>(x + abi.ENTRY_SEQ);
    span(e.id, f, x, abi.ENTRY_ID);
    span(e.agent, f, x, abi.ENTRY_AGENT);
    span(e.type, f, x, abi.ENTRY_TYPE);
    span(e.timestamp, f, x, abi.ENTRY_TIMESTAMP);
    span(e.keyId, f, x, abi.ENTRY_KEY_ID);
    span(e.level, f, x, abi.ENTRY_LEVEL);
    span(e.payload, f, x, abi.ENTRY_PAYLOAD);
    fixed(e.payloadHash, x + abi.ENTRY_PAYLOAD_HASH, abi.HASH_SIZE);
    fixed(e.digest, x + abi.ENTRY_DIGEST, abi.HASH_SIZE);
    const flags = load<u32>(x + abi.ENTRY_FLAGS);
    fixed(e.signature, x + abi.ENTRY_SIGNATURE, flags & abi.FLAG_SIGNED ? abi.SIGNATURE_SIZE : 0);
    e.minted = (flags & abi.FLAG_MINTED) != 0;
    return e;
  }
}
