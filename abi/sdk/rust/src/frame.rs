//! The batch frame.

use crate::abi::*;

fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut v = [0; 4];
    v.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(v)
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u32_at(b, at) as u64 | (u32_at(b, at + 4) as u64) << 32
}

/// A batch that was checked. Its bytes are valid until `deliver` returns.
pub struct Batch<'a> {
    frame: &'a [u8],
    count: usize,
    header_size: usize,
    entry_size: usize,
}

impl<'a> Batch<'a> {
    /// Checks a frame. Every span of every event lies within it when this
    /// succeeds. The sizes of the header and of an entry are the frame's own; what
    /// is beyond those known here is ignored.
    pub fn parse(frame: &'a [u8]) -> Option<Batch<'a>> {
        if frame.len() < HEADER_SIZE as usize || u32_at(frame, HEADER_MAGIC as usize) != FRAME_MAGIC {
            return None;
        }
        let sizes = u32_at(frame, HEADER_HEADER_SIZE as usize);
        let (header, size) = (sizes & 0xffff, sizes >> 16);
        if header < HEADER_SIZE || size < ENTRY_SIZE {
            return None;
        }
        let count = u32_at(frame, HEADER_COUNT as usize);
        // 64 bits, so that no sum of two offsets wraps.
        let total = u32_at(frame, HEADER_TOTAL as usize) as u64;
        let index = header as u64 + count as u64 * size as u64;
        let lines = u32_at(frame, HEADER_PAYLOAD as usize) as u64;
        let length = u32_at(frame, HEADER_PAYLOAD as usize + 4) as u64;
        if total != frame.len() as u64 || index > total || lines < index || lines + length != total {
            return None;
        }
        for entry in frame[header as usize..index as usize].chunks_exact(size as usize) {
            for at in (ENTRY_ID..=ENTRY_PAYLOAD).step_by(8) {
                let from = u32_at(entry, at as usize) as u64;
                let line_feed = (at == ENTRY_PAYLOAD) as u64;
                if from < index || from + u32_at(entry, at as usize + 4) as u64 + line_feed > total {
                    return None;
                }
            }
        }
        Some(Batch { frame, count: count as usize, header_size: header as usize, entry_size: size as usize })
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The same for every attempt.
    pub fn id(&self) -> u64 {
        u64_at(self.frame, HEADER_BATCH_ID as usize)
    }

    /// 1 for the first delivery of this batch.
    pub fn attempt(&self) -> u32 {
        u32_at(self.frame, HEADER_ATTEMPT as usize)
    }

    /// The position of the first event in the queue.
    pub fn first_seq(&self) -> u64 {
        u64_at(self.frame, HEADER_FIRST_SEQ as usize)
    }

    /// The id of the queue that the positions belong to, 16 bytes.
    pub fn queue(&self) -> &'a [u8] {
        &self.frame[HEADER_QUEUE as usize..HEADER_SIZE as usize]
    }

    /// The payloads: one canonical JSON event per line, each ended by one line
    /// feed.
    pub fn lines(&self) -> &'a [u8] {
        &self.frame[u32_at(self.frame, HEADER_PAYLOAD as usize) as usize..]
    }

    /// Event `i`; panics from `len` on.
    pub fn event(&self, i: usize) -> Event<'a> {
        assert!(i < self.count, "event {} of a batch of {}", i, self.count);
        let at = self.header_size + i * self.entry_size;
        Event { frame: self.frame, entry: &self.frame[at..at + ENTRY_SIZE as usize] }
    }

    /// The events in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + '_ {
        (0..self.count).map(move |i| self.event(i))
    }
}

/// One event of a batch.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    frame: &'a [u8],
    entry: &'a [u8],
}

impl<'a> Event<'a> {
    fn span(&self, at: u32) -> &'a [u8] {
        let from = u32_at(self.entry, at as usize) as usize;
        &self.frame[from..from + u32_at(self.entry, at as usize + 4) as usize]
    }

    fn flag(&self, flag: u32) -> bool {
        u32_at(self.entry, ENTRY_FLAGS as usize) & flag != 0
    }

    /// The position in the queue.
    pub fn seq(&self) -> u64 {
        u64_at(self.entry, ENTRY_SEQ as usize)
    }

    /// The idempotency key.
    pub fn id(&self) -> &'a [u8] {
        self.span(ENTRY_ID)
    }

    /// Who was refused.
    pub fn agent(&self) -> &'a [u8] {
        self.span(ENTRY_AGENT)
    }

    /// For example `governance.refusal`.
    pub fn event_type(&self) -> &'a [u8] {
        self.span(ENTRY_TYPE)
    }

    /// RFC 3339.
    pub fn timestamp(&self) -> &'a [u8] {
        self.span(ENTRY_TIMESTAMP)
    }

    /// The timestamp was stamped by the host.
    pub fn minted(&self) -> bool {
        self.flag(FLAG_MINTED)
    }

    /// The name of the signing key, empty for an unsigned event.
    pub fn key_id(&self) -> &'a [u8] {
        self.span(ENTRY_KEY_ID)
    }

    /// The attestation level.
    pub fn level(&self) -> &'a [u8] {
        self.span(ENTRY_LEVEL)
    }

    /// The canonical JSON, without its line feed.
    pub fn payload(&self) -> &'a [u8] {
        self.span(ENTRY_PAYLOAD)
    }

    /// The SHA-256 of the payload, 32 bytes.
    pub fn payload_hash(&self) -> &'a [u8] {
        &self.entry[ENTRY_PAYLOAD_HASH as usize..][..HASH_SIZE as usize]
    }

    /// The event digest, 32 bytes.
    pub fn digest(&self) -> &'a [u8] {
        &self.entry[ENTRY_DIGEST as usize..][..HASH_SIZE as usize]
    }

    /// 64 bytes, or nothing for an unsigned event.
    pub fn signature(&self) -> Option<&'a [u8]> {
        self.flag(FLAG_SIGNED).then(|| &self.entry[ENTRY_SIGNATURE as usize..][..SIGNATURE_SIZE as usize])
    }
}
