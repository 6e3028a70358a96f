// Written by abi/sdk/gen from the constants of package abi. Do not edit.

// The major version of the ABI.
pub const abi_version: u32 = 1;

// Outcomes: bits 32 to 47 of what audit_open, audit_deliver, audit_flush and audit_close answer.
pub const outcome_ok: u32 = 0; // argument: events stored, all of the batch
pub const outcome_partial: u32 = 1; // argument: events stored, the others got a verdict
pub const outcome_retry: u32 = 2; // argument: pause in ms; nothing was stored
pub const outcome_reject: u32 = 3; // nothing was stored, and never will be
pub const outcome_busy: u32 = 4; // argument: pause in ms; what the sink writes to is not to be had
pub const outcome_bad_config: u32 = 5; // from audit_open only

// Reasons: bits 48 to 63 of the same answers, with RETRY, REJECT, BUSY and BAD_CONFIG.
pub const reason_other: u32 = 0; // none of the others
pub const reason_locked: u32 = 1; // another process holds the lock, or was faster
pub const reason_full: u32 = 2; // no space, a quota, a limit
pub const reason_io: u32 = 3; // the disk fails
pub const reason_read_only: u32 = 4; // file, folder or file system
pub const reason_no_access: u32 = 5; // it can't be opened
pub const reason_corrupt: u32 = 6; // what was read is damaged
pub const reason_format: u32 = 7; // it is something else, or of another version
pub const reason_replaced: u32 = 8; // another file has its name
pub const reason_went_back: u32 = 9; // it lacks what it had
pub const reason_schema: u32 = 10; // it does not take events as they are given

// Values from here on are the host's.
pub const first_host_outcome: u32 = 256;

// The index that stands for the batch in a verdict.
pub const whole_batch: u32 = 0xffffffff;

// A place of places: its size and where its parts lie, in bytes, and its flag.
pub const place_size: u32 = 48;
pub const place_sequence: u32 = 0; // u64, from 1; 0: it was not stored
pub const place_flags: u32 = 8; // u32
pub const place_row_hash: u32 = 16; // 32 bytes
pub const place_stored_now: u32 = 1; // this delivery has stored it

// Levels of log.
pub const log_debug: u32 = 0;
pub const log_info: u32 = 1;
pub const log_warn: u32 = 2;
pub const log_error: u32 = 3;

// Ids of metric.
pub const metric_races: u32 = 1; // lost races for the next sequence number

// Statuses of append, http and kv: the upper half of their answer.
pub const status_done: u32 = 0;
pub const status_refused: u32 = 1; // the grant does not allow it
pub const status_invalid: u32 = 2; // malformed: no line feed, no method, an empty key
pub const status_too_large: u32 = 3; // beyond a limit or the buffer; nothing was done
pub const status_timeout: u32 = 4; // not done in time; what a server did is unknown
pub const status_unavailable: u32 = 5; // not to be had now
pub const status_absent: u32 = 6; // no such key

// Modes of sql.
pub const sql_read: u32 = 0;
pub const sql_write: u32 = 1; // an IMMEDIATE transaction

// Kinds of steps of sql.
pub const sql_exec: u32 = 0; // one statement, its rows are ignored
pub const sql_query: u32 = 1; // one statement, its rows are returned
pub const sql_guard: u32 = 2; // one query, its first row must equal the cells
pub const sql_many: u32 = 3; // an INSERT whose text ends in VALUES, for all rows

// Types of a cell of sql.
pub const sql_null: u32 = 0;
pub const sql_int: u32 = 1;
pub const sql_float: u32 = 2;
pub const sql_text: u32 = 3;
pub const sql_blob: u32 = 4;

// Statuses of sql: the upper half of its answer; 1 to 0xffff are SQLite's extended result codes.
pub const sql_done: u32 = 0;
pub const sql_guard_failed: u32 = 0x10000; // the answer holds the row that was found
pub const sql_too_large: u32 = 0x10001; // rolled back
pub const sql_timeout: u32 = 0x10002;
pub const sql_refused: u32 = 0x10003; // the grant does not allow it
pub const sql_broken: u32 = 0x10004; // it is unknown whether it was committed
pub const sql_replaced: u32 = 0x10005; // the file was replaced; nothing was committed
pub const sql_disk_failed: u32 = 0x10006; // the disk failed at the commit; it is unknown whether it was committed

// Sizes in bytes of a step and a cell of sql.
pub const sql_step_size: u32 = 24;
pub const sql_cell_size: u32 = 16;

// The answer of http: size in bytes of its fixed part, and its flags.
pub const http_answer_size: u32 = 24;
pub const http_cut: u32 = 1; // it did not fit
pub const http_withheld: u32 = 2; // the body is left out

// Limits in bytes.
pub const max_frame: u32 = 0x40000000;
pub const max_verdict_text: u32 = 1024; // the rest is cut off
pub const max_log_text: u32 = 4096; // the rest is cut off
pub const max_http_head: u32 = 0x10000;
pub const max_kv_key: u32 = 256;
pub const max_kv_value: u32 = 0x10000;
pub const max_id_len: u32 = 128;
pub const max_agent_id_len: u32 = 256;
pub const max_event_type_len: u32 = 64;
pub const hash_size: u32 = 32;
pub const signature_size: u32 = 64;

// The batch frame. Offsets in it count from its first byte and are unsigned.
pub const frame_magic: u32 = 0x31424841; // "AHB1"
pub const header_size: u32 = 64; // least bytes of the header
pub const entry_size: u32 = 200; // least bytes of the index for each event
pub const header_magic: u32 = 0; // u32
pub const header_header_size: u32 = 4; // u16: how many bytes it has, at least HEADER_SIZE
pub const header_entry_size: u32 = 6; // u16: from one entry to the next, at least ENTRY_SIZE
pub const header_count: u32 = 8; // number of events, u32
pub const header_attempt: u32 = 12; // u32, from 1
pub const header_batch_id: u32 = 16; // u64, the same for every attempt
pub const header_first_seq: u32 = 24; // u64
pub const header_payload: u32 = 32; // payload region: offset u32, length u32
pub const header_total: u32 = 40; // length of the frame, u32
pub const header_queue: u32 = 48; // id of the queue, 16 bytes
pub const entry_seq: u32 = 0; // position in the queue, u64
pub const entry_id: u32 = 8; // offset u32, length u32, as the next six
pub const entry_agent: u32 = 16;
pub const entry_type: u32 = 24;
pub const entry_timestamp: u32 = 32;
pub const entry_key_id: u32 = 40;
pub const entry_level: u32 = 48; // attestation level
pub const entry_payload: u32 = 56; // canonical JSON, without its line feed
pub const entry_flags: u32 = 64; // u32
pub const entry_payload_hash: u32 = 72; // SHA-256 of the payload
pub const entry_digest: u32 = 104; // event digest
pub const entry_signature: u32 = 136; // Ed25519, or zeros
pub const flag_signed: u32 = 1; // the event has a signature
pub const flag_minted: u32 = 2; // the timestamp was stamped by the host

// The host's functions, as they cross the boundary. A module imports those that it calls, and no others.
pub const import = struct {
    pub extern "audit" fn verdict(p0: u32, p1: u32, p2: u32, p3: u32) void;
    pub extern "audit" fn log(p0: u32, p1: u32, p2: u32) void;
    pub extern "audit" fn metric(p0: u32, p1: u64) void;
    pub extern "audit" fn sha256(p0: u32, p1: u32, p2: u32) void;
    pub extern "audit" fn places(p0: u32, p1: u32) void;
    pub extern "audit" fn sql(p0: u32, p1: u32, p2: u32, p3: u32, p4: u32) u64; // capability sql
    pub extern "audit" fn append(p0: u32, p1: u32) u64; // capability append
    pub extern "audit" fn http(p0: u32, p1: u32, p2: u32, p3: u32, p4: u32, p5: u32) u64; // capability http
    pub extern "audit" fn kv_get(p0: u32, p1: u32, p2: u32, p3: u32) u64; // capability kv
    pub extern "audit" fn kv_set(p0: u32, p1: u32, p2: u32, p3: u32) u64; // capability kv
    pub extern "audit" fn kv_delete(p0: u32, p1: u32) u64; // capability kv
    pub extern "audit" fn now() u64; // capability now
    pub extern "audit" fn random(p0: u32, p1: u32) void; // capability random
};
