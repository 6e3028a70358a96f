// Bytes that somebody else keeps, and a buffer that grows.

export class Bytes {
  constructor(public ptr: usize = 0, public length: u32 = 0) {}

  /** Byte i; throws from length on. */
  at(i: u32): u8 {
    if (i >= this.length) throw new RangeError("byte beyond the end");
    return load<u8>(this.ptr + i);
  }

  /** Whether the bytes are the text in UTF-8. */
  equals(text: string): bool {
    const n = <u32>String.UTF8.byteLength(text);
    if (n != this.length) return false;
    if (n != <u32>text.length) return memory.compare(this.ptr, changetype<usize>(String.UTF8.encode(text)), n) == 0;
    for (let i: u32 = 0; i < n; i++) {
      if (load<u8>(this.ptr + i) != <u8>text.charCodeAt(i)) return false;
    }
    return true;
  }

  /** A copy as a string, from UTF-8. */
  toString(): string {
    return String.UTF8.decodeUnsafe(this.ptr, this.length);
  }
}

const MOST: u64 = (1 << 30) - 64; // what the allocator gives in one block

/**
 * Bytes that grow as they are written to. The memory is never given back: have
 * few, keep them in fields or globals, and clear them for each batch. Without
 * memory it traps, and the host delivers the batch to a fresh instance.
 */
export class Buffer extends Bytes {
  size: u32 = 0;

  clear(): void {
    this.length = 0;
  }

  /** Makes room for n more bytes. */
  reserve(n: u32): void {
    if (this.size - this.length >= n) return;
    const want = <u64>this.length + n;
    if (want > MOST) throw new RangeError("buffer beyond 1 GiB");
    const size = <u32>min(max(want, <u64>this.size + this.size / 2), MOST);
    this.ptr = this.size ? heap.realloc(this.ptr, size) : heap.alloc(size);
    this.size = size;
  }

  /** Appends bytes, which do not lie in this buffer. */
  put(b: Bytes): void {
    const n = b.length;
    this.reserve(n);
    memory.copy(this.ptr + this.length, b.ptr, n);
    this.length += n;
  }

  /** Appends a text in UTF-8. */
  putText(text: string): void {
    const n = String.UTF8.byteLength(text);
    this.reserve(n);
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, this.ptr + this.length);
    this.length += n;
  }

  putByte(b: u8): void {
    this.reserve(1);
    store<u8>(this.ptr + this.length, b);
    this.length++;
  }

  putU32(v: u32): void {
    this.reserve(4);
    store<u32>(this.ptr + this.length, v);
    this.length += 4;
  }

  putU64(v: u64): void {
    this.reserve(8);
    store<u64>(this.ptr + this.length, v);
    this.length += 8;
  }

  /** Appends a number in decimal. */
  putNumber(v: u64): void {
    let digits: u64 = 1;
    while (v / digits >= 10) digits *= 10;
    for (; digits > 0; digits /= 10) this.putByte(<u8>(0x30 + ((v / digits) % 10)));
  }

  /** Appends a code point in UTF-8. */
  putRune(c: u32): void {
    if (c < 0x80) {
      this.putByte(<u8>c);
      return;
    }
    if (c < 0x800) {
      this.putByte(<u8>(0xc0 | (c >> 6)));
    } else {
      if (c < 0x10000) {
        this.putByte(<u8>(0xe0 | (c >> 12)));
      } else {
        this.putByte(<u8>(0xf0 | (c >> 18)));
        this.putByte(<u8>(0x80 | ((c >> 12) & 63)));
      }
      this.putByte(<u8>(0x80 | ((c >> 6) & 63)));
    }
    this.putByte(<u8>(0x80 | (c & 63)));
  }
}
