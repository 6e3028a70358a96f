/* Written by abi/sdk/gen from the constants of package abi. Do not edit. */
#ifndef AUDIT_HOST_ABI_H
#define AUDIT_HOST_ABI_H

#include <stdint.h>

/* The major version of the ABI. */
#define AUDIT_ABI_VERSION 1u

/* Outcomes: bits 32 to 47 of what audit_open, audit_deliver, audit_flush and audit_close answer. */
#define AUDIT_OUTCOME_OK 0u /* argument: events stored, all of the batch */
#define AUDIT_OUTCOME_PARTIAL 1u /* argument: events stored, the others got a verdict */
#define AUDIT_OUTCOME_RETRY 2u /* argument: pause in ms; nothing was stored */
#define AUDIT_OUTCOME_REJECT 3u /* nothing was stored, and never will be */
#define AUDIT_OUTCOME_BUSY 4u /* argument: pause in ms; what the sink writes to is not to be had */
#define AUDIT_OUTCOME_BAD_CONFIG 5u /* from audit_open only */

/* Reasons: bits 48 to 63 of the same answers, with RETRY, REJECT, BUSY and BAD_CONFIG. */
#define AUDIT_REASON_OTHER 0u /* none of the others */
#define AUDIT_REASON_LOCKED 1u /* another process holds the lock, or was faster */
#define AUDIT_REASON_FULL 2u /* no space, a quota, a limit */
#define AUDIT_REASON_IO 3u /* the disk fails */
#define AUDIT_REASON_READ_ONLY 4u /* file, folder or file system */
#define AUDIT_REASON_NO_ACCESS 5u /* it can't be opened */
#define AUDIT_REASON_CORRUPT 6u /* what was read is damaged */
#define AUDIT_REASON_FORMAT 7u /* it is something else, or of another version */
#define AUDIT_REASON_REPLACED 8u /* another file has its name */
#define AUDIT_REASON_WENT_BACK 9u /* it lacks what it had */
#define AUDIT_REASON_SCHEMA 10u /* it does not take events as they are given */

/* Values from here on are the host's. */
#define AUDIT_FIRST_HOST_OUTCOME 256u

/* The index that stands for the batch in a verdict. */
#define AUDIT_WHOLE_BATCH 0xffffffffu

/* A place of places: its size and where its parts lie, in bytes, and its flag. */
#define AUDIT_PLACE_SIZE 48u
#define AUDIT_PLACE_SEQUENCE 0u /* u64, from 1; 0: it was not stored */
#define AUDIT_PLACE_FLAGS 8u /* u32 */
#define AUDIT_PLACE_ROW_HASH 16u /* 32 bytes */
#define AUDIT_PLACE_STORED_NOW 1u /* this delivery has stored it */

/* Levels of log. */
#define AUDIT_LOG_DEBUG 0u
#define AUDIT_LOG_INFO 1u
#define AUDIT_LOG_WARN 2u
#define AUDIT_LOG_ERROR 3u

/* Ids of metric. */
#define AUDIT_METRIC_RACES 1u /* lost races for the next sequence number */

/* Statuses of append, http and kv: the upper half of their answer. */
#define AUDIT_STATUS_DONE 0u
#define AUDIT_STATUS_REFUSED 1u /* the grant does not allow it */
#define AUDIT_STATUS_INVALID 2u /* malformed: no line feed, no method, an empty key */
#define AUDIT_STATUS_TOO_LARGE 3u /* beyond a limit or the buffer; nothing was done */
#define AUDIT_STATUS_TIMEOUT 4u /* not done in time; what a server did is unknown */
#define AUDIT_STATUS_UNAVAILABLE 5u /* not to be had now */
#define AUDIT_STATUS_ABSENT 6u /* no such key */

/* Modes of sql. */
#define AUDIT_SQL_READ 0u
#define AUDIT_SQL_WRITE 1u /* an IMMEDIATE transaction */

/* Kinds of steps of sql. */
#define AUDIT_SQL_EXEC 0u /* one statement, its rows are ignored */
#define AUDIT_SQL_QUERY 1u /* one statement, its rows are returned */
#define AUDIT_SQL_GUARD 2u /* one query, its first row must equal the cells */
#define AUDIT_SQL_MANY 3u /* an INSERT whose text ends in VALUES, for all rows */

/* Types of a cell of sql. */
#define AUDIT_SQL_NULL 0u
#define AUDIT_SQL_INT 1u
#define AUDIT_SQL_FLOAT 2u
#define AUDIT_SQL_TEXT 3u
#define AUDIT_SQL_BLOB 4u

/* Statuses of sql: the upper half of its answer; 1 to 0xffff are SQLite's extended result codes. */
#define AUDIT_SQL_DONE 0u
#define AUDIT_SQL_GUARD_FAILED 0x10000u /* the answer holds the row that was found */
#define AUDIT_SQL_TOO_LARGE 0x10001u /* rolled back */
#define AUDIT_SQL_TIMEOUT 0x10002u
#define AUDIT_SQL_REFUSED 0x10003u /* the grant does not allow it */
#define AUDIT_SQL_BROKEN 0x10004u /* it is unknown whether it was committed */
#define AUDIT_SQL_REPLACED 0x10005u /* the file was replaced; nothing was committed */
#define AUDIT_SQL_DISK_FAILED 0x10006u /* the disk failed at the commit; it is unknown whether it was committed */

/* Sizes in bytes of a step and a cell of sql. */
#define AUDIT_SQL_STEP_SIZE 24u
#define AUDIT_SQL_CELL_SIZE 16u

/* The answer of http: size in bytes of its fixed part, and its flags. */
#define AUDIT_HTTP_ANSWER_SIZE 24u
#define AUDIT_HTTP_CUT 1u /* it did not fit */
#define AUDIT_HTTP_WITHHELD 2u /* the body is left out */

/* Limits in bytes. */
#define AUDIT_MAX_FRAME 0x40000000u
#define AUDIT_MAX_VERDICT_TEXT 1024u /* the rest is cut off */
#define AUDIT_MAX_LOG_TEXT 4096u /* the rest is cut off */
#define AUDIT_MAX_HTTP_HEAD 0x10000u
#define AUDIT_MAX_KV_KEY 256u
#define AUDIT_MAX_KV_VALUE 0x10000u
#define AUDIT_MAX_ID_LEN 128u
#define AUDIT_MAX_AGENT_ID_LEN 256u
#define AUDIT_MAX_EVENT_TYPE_LEN 64u
#define AUDIT_HASH_SIZE 32u
#define AUDIT_SIGNATURE_SIZE 64u

/* The batch frame. Offsets in it count from its first byte and are unsigned. */
#define AUDIT_FRAME_MAGIC 0x31424841u /* "AHB1" */
#define AUDIT_HEADER_SIZE 64u /* least bytes of the header */
#define AUDIT_ENTRY_SIZE 200u /* least bytes of the index for each event */
#define AUDIT_HEADER_MAGIC 0u /* u32 */
#define AUDIT_HEADER_HEADER_SIZE 4u /* u16: how many bytes it has, at least HEADER_SIZE */
#define AUDIT_HEADER_ENTRY_SIZE 6u /* u16: from one entry to the next, at least ENTRY_SIZE */
#define AUDIT_HEADER_COUNT 8u /* number of events, u32 */
#define AUDIT_HEADER_ATTEMPT 12u /* u32, from 1 */
#define AUDIT_HEADER_BATCH_ID 16u /* u64, the same for every attempt */
#define AUDIT_HEADER_FIRST_SEQ 24u /* u64 */
#define AUDIT_HEADER_PAYLOAD 32u /* payload region: offset u32, length u32 */
#define AUDIT_HEADER_TOTAL 40u /* length of the frame, u32 */
#define AUDIT_HEADER_QUEUE 48u /* id of the queue, 16 bytes */
#define AUDIT_ENTRY_SEQ 0u /* position in the queue, u64 */
#define AUDIT_ENTRY_ID 8u /* offset u32, length u32, as the next six */
#define AUDIT_ENTRY_AGENT 16u
#define AUDIT_ENTRY_TYPE 24u
#define AUDIT_ENTRY_TIMESTAMP 32u
#define AUDIT_ENTRY_KEY_ID 40u
#define AUDIT_ENTRY_LEVEL 48u /* attestation level */
#define AUDIT_ENTRY_PAYLOAD 56u /* canonical JSON, without its line feed */
#define AUDIT_ENTRY_FLAGS 64u /* u32 */
#define AUDIT_ENTRY_PAYLOAD_HASH 72u /* SHA-256 of the payload */
#define AUDIT_ENTRY_DIGEST 104u /* event digest */
#define AUDIT_ENTRY_SIGNATURE 136u /* Ed25519, or zeros */
#define AUDIT_FLAG_SIGNED 1u /* the event has a signature */
#define AUDIT_FLAG_MINTED 2u /* the timestamp was stamped by the host */

/* The host's functions, as they cross the boundary. A module imports those that it calls, and no others. */
#define AUDIT_IMPORT(name) __attribute__((import_module("audit"), import_name(name)))
AUDIT_IMPORT("verdict") void audit_import_verdict(uint32_t, uint32_t, uint32_t, uint32_t);
AUDIT_IMPORT("log") void audit_import_log(uint32_t, uint32_t, uint32_t);
AUDIT_IMPORT("metric") void audit_import_metric(uint32_t, uint64_t);
AUDIT_IMPORT("sha256") void audit_import_sha256(uint32_t, uint32_t, uint32_t);
AUDIT_IMPORT("places") void audit_import_places(uint32_t, uint32_t);
AUDIT_IMPORT("sql") uint64_t audit_import_sql(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t); /* capability sql */
AUDIT_IMPORT("append") uint64_t audit_import_append(uint32_t, uint32_t); /* capability append */
AUDIT_IMPORT("http") uint64_t audit_import_http(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t); /* capability http */
AUDIT_IMPORT("kv_get") uint64_t audit_import_kv_get(uint32_t, uint32_t, uint32_t, uint32_t); /* capability kv */
AUDIT_IMPORT("kv_set") uint64_t audit_import_kv_set(uint32_t, uint32_t, uint32_t, uint32_t); /* capability kv */
AUDIT_IMPORT("kv_delete") uint64_t audit_import_kv_delete(uint32_t, uint32_t); /* capability kv */
AUDIT_IMPORT("now") uint64_t audit_import_now(void); /* capability now */
AUDIT_IMPORT("random") void audit_import_random(uint32_t, uint32_t); /* capability random */

#endif
