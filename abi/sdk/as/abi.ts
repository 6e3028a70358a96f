// Written by abi/sdk/gen from the constants of package abi. Do not edit.

// The major version of the ABI.
export const ABI_VERSION: u32 = 1;

// Outcomes: bits 32 to 47 of what audit_open, audit_deliver, audit_flush and audit_close answer.
export const OUTCOME_OK: u32 = 0; // argument: events stored, all of the batch
export const OUTCOME_PARTIAL: u32 = 1; // argument: events stored, the others got a verdict
export const OUTCOME_RETRY: u32 = 2; // argument: pause in ms; nothing was stored
export const OUTCOME_REJECT: u32 = 3; // nothing was stored, and never will be
export const OUTCOME_BUSY: u32 = 4; // argument: pause in ms; what the sink writes to is not to be had
export const OUTCOME_BAD_CONFIG: u32 = 5; // from audit_open only

// Reasons: bits 48 to 63 of the same answers, with RETRY, REJECT, BUSY and BAD_CONFIG.
export const REASON_OTHER: u32 = 0; // none of the others
export const REASON_LOCKED: u32 = 1; // another process holds the lock, or was faster
export const REASON_FULL: u32 = 2; // no space, a quota, a limit
export const REASON_IO: u32 = 3; // the disk fails
export const REASON_READ_ONLY: u32 = 4; // file, folder or file system
export const REASON_NO_ACCESS: u32 = 5; // it can't be opened
export const REASON_CORRUPT: u32 = 6; // what was read is damaged
export const REASON_FORMAT: u32 = 7; // it is something else, or of another version
export const REASON_REPLACED: u32 = 8; // another file has its name
export const REASON_WENT_BACK: u32 = 9; // it lacks what it had
export const REASON_SCHEMA: u32 = 10; // it does not take events as they are given

// Values from here on are the host's.
export const FIRST_HOST_OUTCOME: u32 = 256;

// The index that stands for the batch in a verdict.
export const WHOLE_BATCH: u32 = 0xffffffff;

// A place of places: its size and where its parts lie, in bytes, and its flag.
export const PLACE_SIZE: u32 = 48;
export const PLACE_SEQUENCE: u32 = 0; // u64, from 1; 0: it was not stored
export const PLACE_FLAGS: u32 = 8; // u32
export const PLACE_ROW_HASH: u32 = 16; // 32 bytes
export const PLACE_STORED_NOW: u32 = 1; // this delivery has stored it

// Levels of log.
export const LOG_DEBUG: u32 = 0;
export const LOG_INFO: u32 = 1;
export const LOG_WARN: u32 = 2;
export const LOG_ERROR: u32 = 3;

// Ids of metric.
export const METRIC_RACES: u32 = 1; // lost races for the next sequence number

// Statuses of append, http and kv: the upper half of their answer.
export const STATUS_DONE: u32 = 0;
export const STATUS_REFUSED: u32 = 1; // the grant does not allow it
export const STATUS_INVALID: u32 = 2; // malformed: no line feed, no method, an empty key
export const STATUS_TOO_LARGE: u32 = 3; // beyond a limit or the buffer; nothing was done
export const STATUS_TIMEOUT: u32 = 4; // not done in time; what a server did is unknown
export const STATUS_UNAVAILABLE: u32 = 5; // not to be had now
export const STATUS_ABSENT: u32 = 6; // no such key

// Modes of sql.
export const SQL_READ: u32 = 0;
export const SQL_WRITE: u32 = 1; // an IMMEDIATE transaction

// Kinds of steps of sql.
export const SQL_EXEC: u32 = 0; // one statement, its rows are ignored
export const SQL_QUERY: u32 = 1; // one statement, its rows are returned
export const SQL_GUARD: u32 = 2; // one query, its first row must equal the cells
export const SQL_MANY: u32 = 3; // an INSERT whose text ends in VALUES, for all rows

// Types of a cell of sql.
export const SQL_NULL: u32 = 0;
export const SQL_INT: u32 = 1;
export const SQL_FLOAT: u32 = 2;
export const SQL_TEXT: u32 = 3;
export const SQL_BLOB: u32 = 4;

// Statuses of sql: the upper half of its answer; 1 to 0xffff are SQLite's extended result codes.
export const SQL_DONE: u32 = 0;
export const SQL_GUARD_FAILED: u32 = 0x10000; // the answer holds the row that was found
export const SQL_TOO_LARGE: u32 = 0x10001; // rolled back
export const SQL_TIMEOUT: u32 = 0x10002;
export const SQL_REFUSED: u32 = 0x10003; // the grant does not allow it
export const SQL_BROKEN: u32 = 0x10004; // it is unknown whether it was committed
export const SQL_REPLACED: u32 = 0x10005; // the file was replaced; nothing was committed
export const SQL_DISK_FAILED: u32 = 0x10006; // the disk failed at the commit; it is unknown whether it was committed

// Sizes in bytes of a step and a cell of sql.
export const SQL_STEP_SIZE: u32 = 24;
export const SQL_CELL_SIZE: u32 = 16;

// The answer of http: size in bytes of its fixed part, and its flags.
export const HTTP_ANSWER_SIZE: u32 = 24;
export const HTTP_CUT: u32 = 1; // it did not fit
export const HTTP_WITHHELD: u32 = 2; // the body is left out

// Limits in bytes.
export const MAX_FRAME: u32 = 0x40000000;
export const MAX_VERDICT_TEXT: u32 = 1024; // the rest is cut off
export const MAX_LOG_TEXT: u32 = 4096; // the rest is cut off
export const MAX_HTTP_HEAD: u32 = 0x10000;
export const MAX_KV_KEY: u32 = 256;
export const MAX_KV_VALUE: u32 = 0x10000;
export const MAX_ID_LEN: u32 = 128;
export const MAX_AGENT_ID_LEN: u32 = 256;
export const MAX_EVENT_TYPE_LEN: u32 = 64;
export const HASH_SIZE: u32 = 32;
export const SIGNATURE_SIZE: u32 = 64;

// The batch frame. Offsets in it count from its first byte and are unsigned.
export const FRAME_MAGIC: u32 = 0x31424841; // "AHB1"
export const HEADER_SIZE: u32 = 64; // least bytes of the header
export const ENTRY_SIZE: u32 = 200; // least bytes of the index for each event
export const HEADER_MAGIC: u32 = 0; // u32
export const HEADER_HEADER_SIZE: u32 = 4; // u16: how many bytes it has, at least HEADER_SIZE
export const HEADER_ENTRY_SIZE: u32 = 6; // u16: from one entry to the next, at least ENTRY_SIZE
export const HEADER_COUNT: u32 = 8; // number of events, u32
export const HEADER_ATTEMPT: u32 = 12; // u32, from 1
export const HEADER_BATCH_ID: u32 = 16; // u64, the same for every attempt
export const HEADER_FIRST_SEQ: u32 = 24; // u64
export const HEADER_PAYLOAD: u32 = 32; // payload region: offset u32, length u32
export const HEADER_TOTAL: u32 = 40; // length of the frame, u32
export const HEADER_QUEUE: u32 = 48; // id of the queue, 16 bytes
export const ENTRY_SEQ: u32 = 0; // position in the queue, u64
export const ENTRY_ID: u32 = 8; // offset u32, length u32, as the next six
export const ENTRY_AGENT: u32 = 16;
export const ENTRY_TYPE: u32 = 24;
export const ENTRY_TIMESTAMP: u32 = 32;
export const ENTRY_KEY_ID: u32 = 40;
export const ENTRY_LEVEL: u32 = 48; // attestation level
export const ENTRY_PAYLOAD: u32 = 56; // canonical JSON, without its line feed
export const ENTRY_FLAGS: u32 = 64; // u32
export const ENTRY_PAYLOAD_HASH: u32 = 72; // SHA-256 of the payload
export const ENTRY_DIGEST: u32 = 104; // event digest
export const ENTRY_SIGNATURE: u32 = 136; // Ed25519, or zeros
export const FLAG_SIGNED: u32 = 1; // the event has a signature
export const FLAG_MINTED: u32 = 2; // the timestamp was stamped by the host

// The host's functions, as they cross the boundary. A module imports those that it calls, and no others.
// @ts-ignore: decorator
@external("audit", "verdict")
export declare function import_verdict(p0: u32, p1: u32, p2: u32, p3: u32): void;
// @ts-ignore: decorator
@external("audit", "log")
export declare function import_log(p0: u32, p1: u32, p2: u32): void;
// @ts-ignore: decorator
@external("audit", "metric")
export declare function import_metric(p0: u32, p1: u64): void;
// @ts-ignore: decorator
@external("audit", "sha256")
export declare function import_sha256(p0: u32, p1: u32, p2: u32): void;
// @ts-ignore: decorator
@external("audit", "places")
export declare function import_places(p0: u32, p1: u32): void;
// @ts-ignore: decorator
@external("audit", "sql")
export declare function import_sql(p0: u32, p1: u32, p2: u32, p3: u32, p4: u32): u64; // capability sql
// @ts-ignore: decorator
@external("audit", "append")
export declare function import_append(p0: u32, p1: u32): u64; // capability append
// @ts-ignore: decorator
@external("audit", "http")
export declare function import_http(p0: u32, p1: u32, p2: u32, p3: u32, p4: u32, p5: u32): u64; // capability http
// @ts-ignore: decorator
@external("audit", "kv_get")
export declare function import_kv_get(p0: u32, p1: u32, p2: u32, p3: u32): u64; // capability kv
// @ts-ignore: decorator
@external("audit", "kv_set")
export declare function import_kv_set(p0: u32, p1: u32, p2: u32, p3: u32): u64; // capability kv
// @ts-ignore: decorator
@external("audit", "kv_delete")
export declare function import_kv_delete(p0: u32, p1: u32): u64; // capability kv
// @ts-ignore: decorator
@external("audit", "now")
export declare function import_now(): u64; // capability now
// @ts-ignore: decorator
@external("audit", "random")
export declare function import_random(p0: u32, p1: u32): void; // capability random
