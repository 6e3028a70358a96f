// What the host calls. The sink's own file ends with
//
//     export * from "./audit-host-sdk/exports";
import * as abi from "./abi";
import "./abort";
import { Bytes } from "./bytes";
import { Batch } from "./frame";
import { verdict } from "./host";
import { Answer, sink } from "./sink";

let inbox: usize = 0;
let size: u32 = 0;
const batch = new Batch();
const config = new Bytes();

function finish(a: Answer): u64 {
  if (a.message.length > 0) verdict(abi.WHOLE_BATCH, a.outcome, a.message);
  const packed = (<u64>a.reason << 48) | (<u64>a.outcome << 32) | a.argument;
  // The minimal runtime collects only when it is told to, which is allowed while
  // nothing but this number is in use: what is to stay hangs on globals.
  __collect();
  return packed;
}

export function audit_abi_1(): void {}

export function audit_reserve(n: u32): usize {
  if (n > abi.MAX_FRAME - 0x10000) return 0;
  if (n > size || size == 0) {
    // The old one goes first, so that both need not fit.
    if (size) heap.free(inbox);
    size = max((n + 0xffff) & ~0xffff, 0x10000) - 64;
    if (size < n) size += 0x10000;
    inbox = heap.alloc(size);
  }
  return inbox;
}

export function audit_open(n: u32): u64 {
  if (n > size) throw new RangeError("more than was reserved");
  config.ptr = inbox;
  config.length = n;
  return finish(sink().open(config));
}

export function audit_deliver(n: u32): u64 {
  // The host wrote the frame, so no repetition mends it, and a trap is seen.
  if (n > size || !batch.parse(inbox, n)) throw new Error("malformed batch frame");
  return finish(sink().deliver(batch));
}

export function audit_flush(): u64 {
  return finish(sink().flush());
}

export function audit_close(): u64 {
  return finish(sink().close());
}
