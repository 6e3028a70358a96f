// What is thrown ends in a trap. It tells standard error why before that, where
// the host keeps it for the crash record: "panic: MESSAGE at FILE:LINE". The
// compiler calls this where it would import env.abort:
//
//     asc --use abort=audit-host-sdk/abort/abort …
//
// Nothing in here may throw or allocate: the compiler does not take an abort that
// calls itself, and there may be no memory.

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, vectors: usize, n: u32, written: usize): u32;

const ROOM: usize = 1024;
const vector = memory.data(16);
const line = memory.data(1024);

/** Appends a text as ASCII, cut where there is no room. */
function put(at: usize, text: string | null): usize {
  if (text === null) return at;
  const n = min(<usize>text.length, ROOM - 16 - at);
  for (let i: usize = 0; i < n; i++) {
    const c = load<u16>(changetype<usize>(text) + 2 * i);
    store<u8>(line + at + i, c < 0x80 ? <u8>c : 0x3f);
  }
  return at + n;
}

export function abort(message: string | null, file: string | null, row: u32, column: u32): void {
  let at = put(put(put(put(0, "panic: "), message), " at "), file);
  store<u8>(line + at++, 0x3a);
  let digits: u32 = 1;
  while (row / digits >= 10) digits *= 10;
  for (; digits > 0; digits /= 10) store<u8>(line + at++, <u8>(0x30 + ((row / digits) % 10)));
  store<u8>(line + at++, 0x0a);
  store<usize>(vector, line);
  store<usize>(vector + 4, at);
  fd_write(2, vector, 1, vector + 8);
  unreachable();
}
