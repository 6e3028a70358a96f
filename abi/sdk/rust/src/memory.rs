//! Memory in whole pages, and a buffer that grows.

use core::arch::wasm32::{memory_grow, memory_size};
use core::{fmt, ops, ptr, slice};

const PAGE: usize = 65536;
const MOST: usize = 0xffff_0000;

/// A free block, written into it. The list is in order of address, and
/// neighbours are one block.
struct Free {
    next: *mut Free,
    size: usize,
}

struct List(core::cell::UnsafeCell<*mut Free>);

// SAFETY: the module has no threads.
unsafe impl Sync for List {}

static LIST: List = List(core::cell::UnsafeCell::new(ptr::null_mut()));

/// Returns an address and how many bytes are there: `size` rounded up to whole
/// pages, at least one.
fn pages(size: usize) -> Option<(*mut u8, usize)> {
    if size > MOST {
        return None;
    }
    let want = ((size + PAGE - 1) & !(PAGE - 1)).max(PAGE);
    // SAFETY: blocks on the list are memory that this file got and nobody else
    // uses; the module has no threads.
    unsafe {
        let mut at = LIST.0.get();
        while !(*at).is_null() {
            let b = *at;
            if (*b).size < want && (*b).next.is_null() && b as usize + (*b).size == memory_size(0) * PAGE {
                // The last block ends the memory: only what is missing is grown.
                if memory_grow(0, (want - (*b).size) / PAGE) == usize::MAX {
                    return None;
                }
                (*b).size = want;
            }
            if (*b).size == want {
                *at = (*b).next;
                return Some((b as *mut u8, want));
            }
            if (*b).size > want {
                let rest = (b as usize + want) as *mut Free;
                rest.write(Free { next: (*b).next, size: (*b).size - want });
                *at = rest;
                return Some((b as *mut u8, want));
            }
            at = ptr::addr_of_mut!((*b).next);
        }
    }
    match memory_grow(0, want / PAGE) {
        usize::MAX => None,
        page => Some(((page * PAGE) as *mut u8, want)),
    }
}

/// Gives back what `pages` returned.
fn release(p: *mut u8, size: usize) {
    if size == 0 {
        return;
    }
    // SAFETY: as in pages.
    unsafe {
        let mut at = LIST.0.get();
        let mut before: *mut Free = ptr::null_mut();
        while !(*at).is_null() && (*at as usize) < p as usize {
            before = *at;
            at = ptr::addr_of_mut!((*before).next);
        }
        let b = p as *mut Free;
        b.write(Free { next: *at, size });
        *at = b;
        let next = (*b).next;
        if !next.is_null() && b as usize + size == next as usize {
            (*b).size += (*next).size;
            (*b).next = (*next).next;
        }
        if !before.is_null() && before as usize + (*before).size == b as usize {
            (*before).size += (*b).size;
            (*before).next = (*b).next;
        }
    }
}

/// Bytes that grow as they are written to. Empty, it holds no memory; from then
/// on whole pages, which it keeps until it is dropped: have few, and clear them
/// for each batch. Without memory it panics, and the host delivers the batch to a
/// fresh instance.
pub struct Buffer {
    p: *mut u8,
    len: usize,
    size: usize,
}

impl Buffer {
    pub const fn new() -> Buffer {
        Buffer { p: ptr::null_mut(), len: 0, size: 0 }
    }

    /// A buffer of `len` zeros, to be written to by the host.
    pub fn zeroed(len: usize) -> Buffer {
        let mut b = Buffer::new();
        b.resize(len);
        b
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Cuts the buffer, or appends zeros.
    pub fn resize(&mut self, len: usize) {
        if len > self.len {
            self.reserve(len - self.len);
            // SAFETY: reserve made room for len bytes.
            unsafe { ptr::write_bytes(self.p.add(self.len), 0, len - self.len) };
        }
        self.len = len;
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        if self.size - self.len >= more {
            return;
        }
        let want = self.len.checked_add(more).expect("buffer beyond 4 GiB");
        let (p, size) = pages(want.max(self.size.saturating_add(self.size / 2)).min(MOST.max(want))).expect("out of memory");
        // SAFETY: the new block is as large as the old one, and another.
        unsafe { ptr::copy_nonoverlapping(self.p, p, self.len) };
        release(self.p, self.size);
        self.p = p;
        self.size = size;
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        // SAFETY: there is room, and bytes can't be a part of what is borrowed
        // mutably.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.p.add(self.len), bytes.len()) };
        self.len += bytes.len();
    }

    pub fn put_str(&mut self, text: &str) {
        self.put(text.as_bytes());
    }

    pub fn put_byte(&mut self, byte: u8) {
        self.reserve(1);
        // SAFETY: there is room.
        unsafe { *self.p.add(self.len) = byte };
        self.len += 1;
    }

    pub fn put_char(&mut self, c: char) {
        self.put_str(c.encode_utf8(&mut [0; 4]));
    }

    pub fn put_number(&mut self, mut v: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (v % 10) as u8;
            v /= 10;
            if v == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    /// Forgets the bytes and makes room for `len`, and a quarter more if that is
    /// to be had, so that slowly growing batches do not move it each time. The
    /// old block goes first, so that both need not fit. False if there is no
    /// memory.
    pub(crate) fn renew(&mut self, len: usize) -> bool {
        self.len = 0;
        if self.size >= len && self.size > 0 {
            return true;
        }
        release(self.p, self.size);
        self.size = 0;
        match pages(len + len / 4).or_else(|| pages(len)) {
            Some((p, size)) => {
                self.p = p;
                self.size = size;
                true
            }
            None => false,
        }
    }

    /// The first `len` bytes, which the host has written.
    pub(crate) fn written(&self, len: usize) -> &[u8] {
        assert!(len <= self.size && self.size > 0, "more than was reserved");
        // SAFETY: they lie in the block, and the host wrote them.
        unsafe { slice::from_raw_parts(self.p, len) }
    }

    pub(crate) fn address(&self) -> u32 {
        self.p as u32
    }
}

impl ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: len bytes were written.
        unsafe { slice::from_raw_parts(self.p, self.len) }
    }
}

impl ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as above, and it is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.p, self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        release(self.p, self.size);
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.put_str(s);
        Ok(())
    }
}
