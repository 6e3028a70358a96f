//! The host's functions. Statuses are those of the module `abi`; the error of a
//! function is one that is not `STATUS_DONE`.

use crate::abi::*;

fn address(bytes: &[u8]) -> (u32, u32) {
    (bytes.as_ptr() as u32, bytes.len() as u32)
}

fn done(answer: u64) -> Result<u32, u32> {
    match (answer >> 32) as u32 {
        STATUS_DONE => Ok(answer as u32),
        status => Err(status),
    }
}

/// Says `OUTCOME_RETRY` or `OUTCOME_REJECT` of an event that was not stored, once
/// for each, beside `Answer::partial`. `MAX_VERDICT_TEXT` bytes of the text are
/// kept.
pub fn verdict(index: u32, outcome: u32, why: &str) {
    let (p, n) = address(why.as_bytes());
    // SAFETY: the host reads why.
    unsafe { import_verdict(index, outcome, p, n) }
}

/// Where a sink that keeps events in an order, as a ledger does, has one. `NONE` is
/// that of an event that was not stored.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Place {
    /// From 1.
    pub sequence: u64,
    /// `PLACE_STORED_NOW`, or 0 for an event that was there before.
    pub flags: u32,
    zero: u32,
    /// Covers the row and those before it.
    pub row_hash: [u8; HASH_SIZE as usize],
}

const _: () = assert!(core::mem::size_of::<Place>() == PLACE_SIZE as usize);

impl Place {
    pub const NONE: Place = Place { sequence: 0, flags: 0, zero: 0, row_hash: [0; HASH_SIZE as usize] };

    pub fn new(sequence: u64, row_hash: [u8; HASH_SIZE as usize], stored_now: bool) -> Place {
        Place { sequence, flags: if stored_now { PLACE_STORED_NOW } else { 0 }, zero: 0, row_hash }
    }
}

/// Says where the sink keeps the events of the batch on disk, one place for each in
/// their order, once in a `deliver` that answers `Answer::ok` or `Answer::partial`.
pub fn places(list: &[Place]) {
    // SAFETY: the host reads list.
    unsafe { import_places(list.as_ptr() as u32, list.len() as u32) }
}

/// Writes a line to the host's log, at `LOG_INFO` or another level.
pub fn log(level: u32, text: &str) {
    let (p, n) = address(text.as_bytes());
    // SAFETY: the host reads text.
    unsafe { import_log(level, p, n) }
}

/// Adds to a counter, `METRIC_RACES`.
pub fn metric(id: u32, n: u64) {
    // SAFETY: numbers only.
    unsafe { import_metric(id, n) }
}

pub fn sha256(data: &[u8]) -> [u8; HASH_SIZE as usize] {
    let mut out = [0; HASH_SIZE as usize];
    let (p, n) = address(data);
    // SAFETY: the host reads data and writes out.
    unsafe { import_sha256(p, n, out.as_mut_ptr() as u32) };
    out
}

/// Adds a record of whole lines, each ended by a line feed, to the file of the
/// grant. Answer `Answer::busy` to any error. Capability `append`.
pub fn append(record: &[u8]) -> Result<(), u32> {
    let (p, n) = address(record);
    // SAFETY: the host reads record.
    done(unsafe { import_append(p, n) }).map(|_| ())
}

/// Nanoseconds since 1970, UTC. Capability `now`.
pub fn now() -> u64 {
    // SAFETY: a number only.
    unsafe { import_now() }
}

/// Fills `out` with random bytes. Capability `random`.
pub fn random(out: &mut [u8]) {
    // SAFETY: the host writes out.
    unsafe { import_random(out.as_mut_ptr() as u32, out.len() as u32) }
}

/// Reads a key into `out`; `MAX_KV_VALUE` bytes hold any value. Capability `kv`,
/// as for the next two.
pub fn kv_get<'a>(key: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], u32> {
    let (p, n) = address(key);
    // SAFETY: the host reads key and writes out.
    let n = done(unsafe { import_kv_get(p, n, out.as_mut_ptr() as u32, out.len() as u32) })?;
    Ok(&out[..n as usize])
}

/// Sets a key. What a call has set is kept if the call ends in OK or PARTIAL, all
/// of it together.
pub fn kv_set(key: &[u8], value: &[u8]) -> Result<(), u32> {
    let ((p, n), (v, vn)) = (address(key), address(value));
    // SAFETY: the host reads both.
    done(unsafe { import_kv_set(p, n, v, vn) }).map(|_| ())
}

/// Removes a key; `STATUS_ABSENT` if there is none.
pub fn kv_delete(key: &[u8]) -> Result<(), u32> {
    let (p, n) = address(key);
    // SAFETY: the host reads key.
    done(unsafe { import_kv_delete(p, n) }).map(|_| ())
}

/// What a server answered.
pub struct HttpAnswer<'a> {
    /// HTTP's status.
    pub code: u32,
    /// `HTTP_CUT`, `HTTP_WITHHELD`.
    pub flags: u32,
    pub redirects: u32,
    /// The length of the body before it was cut.
    pub full: u32,
    /// Lines "name: value", the names in lower case.
    pub header: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> HttpAnswer<'a> {
    /// The first field of a name, which is given in lower case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        for line in self.header.split(|c| *c == b'\n') {
            if line.len() > name.len() && line[name.len()] == b':' && line.starts_with(name.as_bytes()) {
                let value = &line[name.len() + 1..];
                let from = value.iter().position(|c| *c != b' ').unwrap_or(value.len());
                return Some(&value[from..]);
            }
        }
        None
    }
}

/// Makes a request. `head` is a line "METHOD URL" and a line "Name: value" for
/// each field, each ended by a line feed; `{{secret NAME}}` in a value is replaced
/// by the host. The answer is written to `out`; an error is a status and a reason
/// for a person. Capability `http`.
pub fn http<'a>(head: &[u8], body: &[u8], out: &'a mut [u8]) -> Result<HttpAnswer<'a>, (u32, &'a [u8])> {
    let ((h, hn), (b, bn)) = (address(head), address(body));
    // SAFETY: the host reads head and body and writes out.
    let answer = unsafe { import_http(h, hn, b, bn, out.as_mut_ptr() as u32, out.len() as u32) };
    let out = &out[..(answer as u32 as usize).min(out.len())];
    let status = (answer >> 32) as u32;
    if status != STATUS_DONE {
        return Err((status, out));
    }
    let number = |i: usize| {
        let mut v = [0; 4];
        v.copy_from_slice(&out[4 * i..4 * i + 4]);
        u32::from_le_bytes(v)
    };
    let rest = &out[HTTP_ANSWER_SIZE as usize..];
    let (header, rest) = rest.split_at(number(3) as usize);
    Ok(HttpAnswer { code: number(0), flags: number(1), redirects: number(2), full: number(5), header, body: &rest[..number(4) as usize] })
}
