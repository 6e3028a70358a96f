// A modest reader of JSON: the members of one object, one after the other.
//
//     const members = new Members(config);
//     while (members.next()) { members.key, members.value … }
//     if (members.bad) …
//
// A value is the text as it stands. Keys are compared as they stand, escapes
// included.
import { Buffer, Bytes } from "./bytes";

/** How many arrays and objects may lie within each other: as many as in an event. */
const DEPTH: u32 = 128;

// What passes over something returns where it ends, or 0.

function space(p: usize, end: usize): usize {
  while (p < end) {
    const c = load<u8>(p);
    if (c != 0x20 && c != 0x09 && c != 0x0a && c != 0x0d) break;
    p++;
  }
  return p;
}

function byte(p: usize, end: usize, c: u8): usize {
  return p < end && load<u8>(p) == c ? p + 1 : 0;
}

function string(p: usize, end: usize): usize {
  p = byte(p, end, 0x22);
  if (!p) return 0;
  for (; p < end && load<u8>(p) >= 0x20; p++) {
    const c = load<u8>(p);
    if (c == 0x22) return p + 1;
    if (c == 0x5c && ++p == end) return 0;
  }
  return 0;
}

function key(p: usize, end: usize): usize {
  p = string(space(p, end), end);
  if (!p) return 0;
  p = byte(space(p, end), end, 0x3a);
  return p ? space(p, end) : 0;
}

// The brackets that are awaited.
const open = new StaticArray<u8>(<i32>DEPTH);

/** Passes over any value, without looking into numbers. */
function value(p: usize, end: usize): usize {
  let depth: u32 = 0;
  for (p = space(p, end); p < end; p = space(p, end)) {
    const c = load<u8>(p);
    if (c == 0x7b || c == 0x5b) {
      if (depth == DEPTH) return 0;
      const close: u8 = c + 2; // { } and [ ] stand two apart
      open[depth++] = close;
      p = space(p + 1, end);
      if (!byte(p, end, close)) {
        if (c == 0x7b) {
          p = key(p, end);
          if (!p) return 0;
        }
        continue;
      }
    } else if (c == 0x22) {
      p = string(p, end);
      if (!p) return 0;
    } else {
      const from = p;
      while (p < end) {
        const d = load<u8>(p);
        const letter = d | 0x20;
        if (!((letter >= 0x61 && letter <= 0x7a) || (d >= 0x30 && d <= 0x39) || d == 0x2b || d == 0x2d || d == 0x2e)) break;
        p++;
      }
      if (p == from) return 0;
    }
    // What follows a value.
    while (true) {
      if (depth == 0) return p;
      const close: u8 = open[depth - 1];
      p = space(p, end);
      const after = byte(p, end, close);
      if (after) {
        depth--;
        p = after;
        continue;
      }
      p = byte(p, end, 0x2c);
      if (!p) return 0;
      if (close == 0x7d) {
        p = key(p, end);
        if (!p) return 0;
      }
      break;
    }
  }
  return 0;
}

/** The members of an object. */
export class Members {
  /** The key without its quotation marks. */
  key: Bytes = new Bytes();
  /** Its first byte tells what it is: { [ " t f n, or a number. */
  value: Bytes = new Bytes();
  /** Set when the text is no object. */
  bad: bool = true;
  private p: usize;
  private end: usize;
  private begun: bool = false;

  constructor(text: Bytes) {
    this.end = text.ptr + text.length;
    this.p = space(text.ptr, this.end);
    // The whole of it is passed over first: what is read later is well formed.
    const end = byte(this.p, this.end, 0x7b) ? value(this.p, this.end) : 0;
    if (end && space(end, this.end) == this.end) {
      this.bad = false;
      this.p++;
      this.end = end - 1;
    }
  }

  /** Goes to the next member; false when there is none, or the text is no object. */
  next(): bool {
    if (this.bad) return false;
    let p = space(this.p, this.end);
    if (p == this.end) return false;
    if (this.begun) p = space(p + 1, this.end); // the comma
    this.begun = true;
    this.key.ptr = p + 1;
    this.key.length = <u32>(string(p, this.end) - p) - 2;
    p = key(p, this.end);
    this.p = value(p, this.end);
    this.value.ptr = p;
    this.value.length = <u32>(this.p - p);
    return true;
  }
}

/** Four hexadecimal digits, or -1. */
function hex(p: usize, end: usize): i32 {
  if (end - p < 4) return -1;
  let v = 0;
  for (let i: usize = 0; i < 4; i++) {
    const d = <i32>load<u8>(p + i);
    const letter = d | 0x20;
    if (d >= 0x30 && d <= 0x39) v = (v << 4) | (d - 0x30);
    else if (letter >= 0x61 && letter <= 0x66) v = (v << 4) | (letter - 0x61 + 10);
    else return -1;
  }
  return v;
}

/**
 * Appends a string without its escapes; false if the value is none. A half of a
 * surrogate pair becomes U+FFFD.
 */
export function text(value: Bytes, out: Buffer): bool {
  let p = value.ptr;
  let end = p + value.length;
  if (value.length < 2 || string(p, end) != end) return false;
  end--;
  for (p++; p < end; p++) {
    if (load<u8>(p) != 0x5c) {
      out.putByte(load<u8>(p));
      continue;
    }
    let c = <u32>load<u8>(++p);
    switch (c) {
      case 0x22:
      case 0x5c:
      case 0x2f: break;
      case 0x62: { c = 0x08; break; }
      case 0x66: { c = 0x0c; break; }
      case 0x6e: { c = 0x0a; break; }
      case 0x72: { c = 0x0d; break; }
      case 0x74: { c = 0x09; break; }
      case 0x75: {
        const high = hex(p + 1, end);
        if (high < 0) return false;
        p += 4;
        c = <u32>high;
        if (c >= 0xd800 && c < 0xe000) {
          c = 0xfffd;
          if (high < 0xdc00 && end - p > 6 && load<u8>(p + 1) == 0x5c && load<u8>(p + 2) == 0x75) {
            const low = hex(p + 3, end);
            if (low >= 0xdc00 && low < 0xe000) {
              c = 0x10000 + (<u32>(high - 0xd800) << 10) + <u32>(low - 0xdc00);
              p += 6;
            }
          }
        }
        break;
      }
      default: return false;
    }
    out.putRune(c);
  }
  return true;
}
