/* Sinks for audit-host in C, without libc: ABI 1.
 *
 * A sink is two functions and one line that exports them:
 *
 *     static audit_answer open_sink(audit_bytes config) { ... return audit_ok(0); }
 *     static audit_answer deliver(audit_batch batch)    { ... return audit_ok(batch.count); }
 *     AUDIT_SINK(open_sink, deliver)
 *
 * and, where they are wanted, AUDIT_FLUSH(function) and AUDIT_CLOSE(function).
 * Include this header in one file of the module only.
 *
 * Guaranteed: a batch is checked once, whole, before deliver is called, and a
 * malformed one traps; every offset is unsigned; the module imports those host
 * functions that are called and no others. Memory comes from memory.grow alone
 * and is used again, so that it does not creep; wasi-libc's malloc may be used
 * beside it.
 *
 * Not guaranteed: that a wild pointer traps. Address 0 is memory like any
 * other in WebAssembly. */
#ifndef AUDIT_HOST_H
#define AUDIT_HOST_H

#include <stddef.h>

#include "audit_host_abi.h"

#define AUDIT_INLINE static inline __attribute__((unused))
#define AUDIT_EXPORT(name) __attribute__((export_name(name), used))

/* ---- Bytes ------------------------------------------------------------- */

/* audit_bytes are n bytes that somebody else keeps. */
typedef struct {
    const uint8_t *p;
    uint32_t n;
} audit_bytes;

/* AUDIT_STR makes bytes of a literal. */
#define AUDIT_STR(literal) ((audit_bytes){(const uint8_t *)("" literal), sizeof(literal) - 1})

AUDIT_INLINE audit_bytes audit_span(const void *p, uint32_t n) {
    return (audit_bytes){(const uint8_t *)p, n};
}

AUDIT_INLINE int audit_equal(audit_bytes a, audit_bytes b) {
    if (a.n != b.n) return 0;
    for (uint32_t i = 0; i < a.n; i++)
        if (a.p[i] != b.p[i]) return 0;
    return 1;
}

AUDIT_INLINE uint32_t audit_address(const void *p) { return (uint32_t)(uintptr_t)p; }

AUDIT_INLINE uint32_t audit_u32(const uint8_t *p) {
    uint32_t v;
    __builtin_memcpy(&v, p, 4);
    return v;
}

AUDIT_INLINE uint64_t audit_u64(const uint8_t *p) {
    uint64_t v;
    __builtin_memcpy(&v, p, 8);
    return v;
}

/* ---- Memory ------------------------------------------------------------ */

#define AUDIT_PAGE 65536u

/* A free block of whole pages; the list is in order of address, neighbours are
 * one block. */
typedef struct audit_free_block {
    struct audit_free_block *next;
    uint32_t size;
} audit_free_block;

static audit_free_block *audit_free_list;

/* audit_pages returns *size bytes, rounded up to whole pages, or null. */
AUDIT_INLINE uint8_t *audit_pages(uint32_t *size) {
    if (*size > 0xffff0000u) return NULL;
    uint32_t want = (*size + AUDIT_PAGE - 1) & ~(AUDIT_PAGE - 1);
    if (want == 0) want = AUDIT_PAGE;
    audit_free_block **at = &audit_free_list;
    for (; *at; at = &(*at)->next) {
        audit_free_block *b = *at;
        uint32_t end = audit_address(b) + b->size;
        if (b->size < want && !b->next && end == __builtin_wasm_memory_size(0) * AUDIT_PAGE) {
            /* The last block ends the memory: only what is missing is grown. */
            if (__builtin_wasm_memory_grow(0, (want - b->size) / AUDIT_PAGE) == (size_t)-1) return NULL;
            b->size = want;
        }
        if (b->size < want) continue;
        if (b->size == want) {
            *at = b->next;
        } else {
            audit_free_block *rest = (audit_free_block *)((uint8_t *)b + want);
            rest->next = b->next;
            rest->size = b->size - want;
            *at = rest;
        }
        *size = want;
        return (uint8_t *)b;
    }
    size_t page = __builtin_wasm_memory_grow(0, want / AUDIT_PAGE);
    if (page == (size_t)-1) return NULL;
    *size = want;
    return (uint8_t *)(page * AUDIT_PAGE);
}

/* audit_release gives back what audit_pages returned. */
AUDIT_INLINE void audit_release(uint8_t *p, uint32_t size) {
    if (!p) return;
    audit_free_block **at = &audit_free_list, *before = NULL;
    while (*at && audit_address(*at) < audit_address(p)) {
        before = *at;
        at = &(*at)->next;
    }
    audit_free_block *b = (audit_free_block *)p;
    b->next = *at;
    b->size = size;
    *at = b;
    if (b->next && audit_address(b) + b->size == audit_address(b->next)) {
        b->size += b->next->size;
        b->next = b->next->next;
    }
    if (before && audit_address(before) + before->size == audit_address(b)) {
        before->size += b->size;
        before->next = b->next;
    }
}

/* audit_buffer grows as it is written to. Zeroed, it is empty. A static one is
 * reused from batch to batch: set n to 0. */
typedef struct {
    uint8_t *p;
    uint32_t n, size;
} audit_buffer;

/* audit_room makes room for n more bytes, or traps if there is no memory: the
 * host then delivers the batch to a fresh instance. */
AUDIT_INLINE void audit_room(audit_buffer *b, uint32_t n) {
    if (b->size - b->n >= n) return;
    uint64_t want = (uint64_t)b->n + n, more = (uint64_t)b->size + b->size / 2;
    if (want < more) want = more;
    if (want > 0xffff0000u) __builtin_trap();
    uint32_t size = (uint32_t)want;
    uint8_t *p = audit_pages(&size);
    if (!p) __builtin_trap();
    if (b->n) __builtin_memcpy(p, b->p, b->n);
    audit_release(b->p, b->size);
    b->p = p;
    b->size = size;
}

/* audit_put appends bytes, which do not lie in the buffer. */
AUDIT_INLINE void audit_put(audit_buffer *b, audit_bytes v) {
    audit_room(b, v.n);
    if (v.n) __builtin_memcpy(b->p + b->n, v.p, v.n);
    b->n += v.n;
}

AUDIT_INLINE void audit_put_byte(audit_buffer *b, uint8_t v) {
    audit_room(b, 1);
    b->p[b->n++] = v;
}

AUDIT_INLINE void audit_put_number(audit_buffer *b, uint64_t v) {
    uint8_t digits[20];
    uint32_t n = 0;
    do digits[n++] = (uint8_t)('0' + v % 10);
    while (v /= 10);
    while (n) audit_put_byte(b, digits[--n]);
}

AUDIT_INLINE audit_bytes audit_written(const audit_buffer *b) { return audit_span(b->p, b->n); }

/* ---- The host's functions ---------------------------------------------- */

/* audit_verdict says RETRY or REJECT of an event that was not stored, once for
 * each, beside an answer audit_partial. AUDIT_MAX_VERDICT_TEXT bytes of the
 * text are kept. */
AUDIT_INLINE void audit_verdict(uint32_t index, uint32_t outcome, audit_bytes text) {
    audit_import_verdict(index, outcome, audit_address(text.p), text.n);
}

/* audit_place is where a sink that keeps events in an order, as a ledger does, has
 * one. Zeroed, it is that of an event that was not stored. */
typedef struct {
    uint64_t sequence; /* from 1 */
    uint32_t flags;    /* AUDIT_PLACE_STORED_NOW, or 0 for an event that was there before */
    uint32_t zero;
    uint8_t row_hash[AUDIT_HASH_SIZE]; /* covers the row and those before it */
} audit_place;

_Static_assert(sizeof(audit_place) == AUDIT_PLACE_SIZE && offsetof(audit_place, flags) == AUDIT_PLACE_FLAGS &&
                   offsetof(audit_place, row_hash) == AUDIT_PLACE_ROW_HASH,
               "a place is not the ABI's");

/* audit_places says where the sink keeps the events of the batch on disk, one place
 * for each in their order, once in a deliver that answers audit_ok or
 * audit_partial. */
AUDIT_INLINE void audit_places(const audit_place *list, uint32_t n) { audit_import_places(audit_address(list), n); }

/* audit_log writes a line to the host's log, at one of AUDIT_LOG_... */
AUDIT_INLINE void audit_log(uint32_t level, audit_bytes text) {
    audit_import_log(level, audit_address(text.p), text.n);
}

AUDIT_INLINE void audit_metric(uint32_t id, uint64_t n) { audit_import_metric(id, n); }

AUDIT_INLINE void audit_sha256(uint8_t out[AUDIT_HASH_SIZE], audit_bytes data) {
    audit_import_sha256(audit_address(data.p), data.n, audit_address(out));
}

/* audit_append adds a record of whole lines, each ended by a line feed, to the
 * file of the grant and returns a status. Answer audit_busy to any but
 * AUDIT_STATUS_DONE. Capability append. */
AUDIT_INLINE uint32_t audit_append(audit_bytes record) {
    return (uint32_t)(audit_import_append(audit_address(record.p), record.n) >> 32);
}

/* audit_now returns nanoseconds since 1970, UTC. Capability now. */
AUDIT_INLINE uint64_t audit_now(void) { return audit_import_now(); }

/* audit_random fills p with random bytes. Capability random. */
AUDIT_INLINE void audit_random(void *p, uint32_t n) { audit_import_random(audit_address(p), n); }

/* audit_result is a status, and the bytes that were written to the caller's
 * memory. */
typedef struct {
    uint32_t status;
    audit_bytes bytes;
} audit_result;

AUDIT_INLINE audit_result audit_result_of(uint64_t answer, const void *out, uint32_t size) {
    uint32_t n = (uint32_t)answer;
    return (audit_result){(uint32_t)(answer >> 32), audit_span(out, n < size ? n : size)};
}

/* audit_kv_get reads a key into out; AUDIT_MAX_KV_VALUE bytes hold any value.
 * Capability kv, as for the next two. */
AUDIT_INLINE audit_result audit_kv_get(audit_bytes key, void *out, uint32_t size) {
    audit_result r = audit_result_of(audit_import_kv_get(audit_address(key.p), key.n, audit_address(out), size), out, size);
    if (r.status != AUDIT_STATUS_DONE) r.bytes.n = 0;
    return r;
}

/* audit_kv_set returns a status. What a call has set is kept if the call ends in
 * OK or PARTIAL, all of it together. */
AUDIT_INLINE uint32_t audit_kv_set(audit_bytes key, audit_bytes value) {
    return (uint32_t)(audit_import_kv_set(audit_address(key.p), key.n, audit_address(value.p), value.n) >> 32);
}

AUDIT_INLINE uint32_t audit_kv_delete(audit_bytes key) {
    return (uint32_t)(audit_import_kv_delete(audit_address(key.p), key.n) >> 32);
}

/* audit_http_answer is what a server answered. Unless status is
 * AUDIT_STATUS_DONE there is only reason, a text for a person. */
typedef struct {
    uint32_t status;
    audit_bytes reason;
    uint32_t code, flags, redirects, full; /* full: length of the body before it was cut */
    audit_bytes header, body;
} audit_http_answer;

/* audit_http makes a request. head is a line "METHOD URL" and a line
 * "Name: value" for each field, each ended by a line feed; {{secret NAME}} in a
 * value is replaced by the host. The answer is written to out. Capability http. */
AUDIT_INLINE audit_http_answer audit_http(audit_bytes head, audit_bytes body, void *out, uint32_t size) {
    audit_result r = audit_result_of(
        audit_import_http(audit_address(head.p), head.n, audit_address(body.p), body.n, audit_address(out), size), out, size);
    audit_http_answer a = {r.status, r.bytes, 0, 0, 0, 0, {NULL, 0}, {NULL, 0}};
    if (r.status != AUDIT_STATUS_DONE) return a;
    a.reason.n = 0;
    const uint8_t *p = r.bytes.p;
    if (r.bytes.n < AUDIT_HTTP_ANSWER_SIZE) __builtin_trap();
    a.code = audit_u32(p);
    a.flags = audit_u32(p + 4);
    a.redirects = audit_u32(p + 8);
    a.full = audit_u32(p + 20);
    uint32_t header = audit_u32(p + 12), length = audit_u32(p + 16);
    if ((uint64_t)header + length > r.bytes.n - AUDIT_HTTP_ANSWER_SIZE) __builtin_trap();
    a.header = audit_span(p + AUDIT_HTTP_ANSWER_SIZE, header);
    a.body = audit_span(p + AUDIT_HTTP_ANSWER_SIZE + header, length);
    return a;
}

/* audit_http_field finds the first field of a name in lower case; p is null if
 * there is none. */
AUDIT_INLINE audit_bytes audit_http_field(const audit_http_answer *a, audit_bytes name) {
    const uint8_t *p = a->header.p, *end = p + a->header.n;
    while (p < end) {
        const uint8_t *line = p;
        while (p < end && *p != '\n') p++;
        uint32_t n = (uint32_t)(p - line);
        if (n > name.n && line[name.n] == ':' && audit_equal(audit_span(line, name.n), name)) {
            line += name.n + 1;
            while (line < p && *line == ' ') line++;
            return audit_span(line, (uint32_t)(p - line));
        }
        p++;
    }
    return audit_span(NULL, 0);
}

/* ---- sql --------------------------------------------------------------- */

typedef struct {
    uint32_t type, length;
    uint64_t value;
} audit_cell;

typedef struct {
    uint32_t kind, text, length, columns, rows, cells;
} audit_step;

_Static_assert(sizeof(audit_cell) == AUDIT_SQL_CELL_SIZE, "a cell is not the ABI's");
_Static_assert(sizeof(audit_step) == AUDIT_SQL_STEP_SIZE, "a step is not the ABI's");

AUDIT_INLINE audit_cell audit_cell_null(void) { return (audit_cell){AUDIT_SQL_NULL, 0, 0}; }
AUDIT_INLINE audit_cell audit_cell_int(int64_t v) { return (audit_cell){AUDIT_SQL_INT, 0, (uint64_t)v}; }
AUDIT_INLINE audit_cell audit_cell_float(double v) {
    audit_cell c = {AUDIT_SQL_FLOAT, 0, 0};
    __builtin_memcpy(&c.value, &v, 8);
    return c;
}
/* The bytes of a text or blob must not change before audit_sql returns. */
AUDIT_INLINE audit_cell audit_cell_text(audit_bytes v) { return (audit_cell){AUDIT_SQL_TEXT, v.n, audit_address(v.p)}; }
AUDIT_INLINE audit_cell audit_cell_blob(audit_bytes v) { return (audit_cell){AUDIT_SQL_BLOB, v.n, audit_address(v.p)}; }

/* audit_sql_step makes a step of one of the kinds AUDIT_SQL_EXEC, QUERY, GUARD and MANY
 * with rows x columns cells. */
AUDIT_INLINE audit_step audit_sql_step(uint32_t kind, audit_bytes sql, const audit_cell *cells, uint32_t columns, uint32_t rows) {
    return (audit_step){kind, audit_address(sql.p), sql.n, columns, rows, audit_address(cells)};
}

/* audit_sql runs n steps as one transaction, of mode AUDIT_SQL_READ or AUDIT_SQL_WRITE. The
 * bytes of the result are rows, or the text of an error. Capability sql. */
AUDIT_INLINE audit_result audit_sql(uint32_t mode, const audit_step *steps, uint32_t n, void *out, uint32_t size) {
    return audit_result_of(audit_import_sql(mode, audit_address(steps), n, audit_address(out), size), out, size);
}

/* audit_rows reads the rows of a result: begin with audit_rows_of, then for
 * each row audit_next_row, then its cells from left to right. */
typedef struct {
    audit_bytes rest;
    uint32_t step, columns; /* of the row */
    uint32_t left;          /* cells not yet read */
} audit_rows;

AUDIT_INLINE audit_rows audit_rows_of(audit_result r) { return (audit_rows){r.bytes, 0, 0, 0}; }

AUDIT_INLINE uint32_t audit_next_cell(audit_rows *r, audit_bytes *value) {
    *value = audit_span(NULL, 0);
    if (r->left == 0 || r->rest.n < 8) {
        r->left = 0;
        return AUDIT_SQL_NULL;
    }
    uint32_t type = audit_u32(r->rest.p), n = audit_u32(r->rest.p + 4);
    r->left--;
    r->rest = audit_span(r->rest.p + 8, r->rest.n - 8);
    if (n > r->rest.n) n = r->rest.n;
    *value = audit_span(r->rest.p, n);
    r->rest = audit_span(r->rest.p + n, r->rest.n - n);
    return type;
}

AUDIT_INLINE int audit_next_row(audit_rows *r) {
    audit_bytes ignored;
    while (r->left) audit_next_cell(r, &ignored);
    if (r->rest.n < 8) return 0;
    r->step = audit_u32(r->rest.p);
    r->columns = r->left = audit_u32(r->rest.p + 4);
    r->rest = audit_span(r->rest.p + 8, r->rest.n - 8);
    return 1;
}

/* audit_next_int, audit_next_float and audit_next_bytes read a cell; 0 or nothing if it
 * is of another type. */
AUDIT_INLINE int64_t audit_next_int(audit_rows *r) {
    audit_bytes v;
    return audit_next_cell(r, &v) == AUDIT_SQL_INT && v.n == 8 ? (int64_t)audit_u64(v.p) : 0;
}

AUDIT_INLINE double audit_next_float(audit_rows *r) {
    audit_bytes v;
    double d = 0;
    if (audit_next_cell(r, &v) == AUDIT_SQL_FLOAT && v.n == 8) __builtin_memcpy(&d, v.p, 8);
    return d;
}

AUDIT_INLINE audit_bytes audit_next_bytes(audit_rows *r) {
    audit_bytes v;
    uint32_t type = audit_next_cell(r, &v);
    return type == AUDIT_SQL_TEXT || type == AUDIT_SQL_BLOB ? v : audit_span(NULL, 0);
}

/* ---- Answers ----------------------------------------------------------- */

/* audit_answer is an outcome, its argument, and a message about the batch. */
typedef struct {
    uint32_t outcome, argument;
    audit_bytes message;
    uint32_t reason; /* one of AUDIT_REASON_... */
} audit_answer;

AUDIT_INLINE audit_answer audit_answer_of(uint32_t outcome, uint32_t argument, audit_bytes message) {
    return (audit_answer){outcome, argument, message, AUDIT_REASON_OTHER};
}

/* All n events are stored. From open, flush and close: audit_ok(0). */
AUDIT_INLINE audit_answer audit_ok(uint32_t n) { return audit_answer_of(AUDIT_OUTCOME_OK, n, audit_span(NULL, 0)); }
/* n events are stored, each of the others got a verdict. */
AUDIT_INLINE audit_answer audit_partial(uint32_t n) { return audit_answer_of(AUDIT_OUTCOME_PARTIAL, n, audit_span(NULL, 0)); }
/* Nothing was stored, the same batch is wanted again after a pause. */
AUDIT_INLINE audit_answer audit_retry(uint32_t ms, audit_bytes why) { return audit_answer_of(AUDIT_OUTCOME_RETRY, ms, why); }
/* Nothing was stored: what the sink writes to is not to be had now. */
AUDIT_INLINE audit_answer audit_busy(uint32_t ms, audit_bytes why) { return audit_answer_of(AUDIT_OUTCOME_BUSY, ms, why); }
/* Nothing was stored, and never will be. */
AUDIT_INLINE audit_answer audit_reject(audit_bytes why) { return audit_answer_of(AUDIT_OUTCOME_REJECT, 0, why); }
/* The configuration is refused. From open only. */
AUDIT_INLINE audit_answer audit_bad_config(audit_bytes why) { return audit_answer_of(AUDIT_OUTCOME_BAD_CONFIG, 0, why); }

/* Adds one of AUDIT_REASON_... to an answer that says that something went wrong:
 * metrics and readiness go by it, and the text is for people. */
AUDIT_INLINE audit_answer audit_because(audit_answer a, uint32_t reason) {
    a.reason = reason;
    return a;
}

AUDIT_INLINE uint64_t audit_finish(audit_answer a) {
    if (a.message.n) audit_verdict(AUDIT_WHOLE_BATCH, a.outcome, a.message);
    return (uint64_t)a.reason << 48 | (uint64_t)a.outcome << 32 | a.argument;
}

#include "audit_host_frame.h"
#include "audit_host_json.h"

/* ---- Exports ----------------------------------------------------------- */

static audit_buffer audit_inbox;

AUDIT_EXPORT("audit_abi_1") void audit_export_marker(void) {}

AUDIT_EXPORT("audit_reserve") uint32_t audit_export_reserve(uint32_t n) {
    if (n > AUDIT_MAX_FRAME) return 0;
    if (n > audit_inbox.size || !audit_inbox.p) {
        /* The old one goes first, so that both need not fit; some more than
         * asked for, so that slowly growing batches do not move each time. */
        audit_release(audit_inbox.p, audit_inbox.size);
        audit_inbox.size = n + n / 4;
        audit_inbox.p = audit_pages(&audit_inbox.size);
        if (!audit_inbox.p) {
            audit_inbox.size = n;
            audit_inbox.p = audit_pages(&audit_inbox.size);
        }
        if (!audit_inbox.p) audit_inbox.size = 0;
    }
    return audit_address(audit_inbox.p);
}

#define AUDIT_SINK(open_function, deliver_function)                                                \
    AUDIT_EXPORT("audit_open") uint64_t audit_export_open(uint32_t n) {                            \
        if (n > audit_inbox.size) __builtin_trap();                                                \
        return audit_finish(open_function(audit_span(audit_inbox.p, n)));                          \
    }                                                                                              \
    AUDIT_EXPORT("audit_deliver") uint64_t audit_export_deliver(uint32_t n) {                      \
        if (n > audit_inbox.size) __builtin_trap();                                                \
        return audit_finish(deliver_function(audit_batch_of(audit_span(audit_inbox.p, n))));       \
    }

#define AUDIT_FLUSH(function) \
    AUDIT_EXPORT("audit_flush") uint64_t audit_export_flush(void) { return audit_finish(function()); }

#define AUDIT_CLOSE(function) \
    AUDIT_EXPORT("audit_close") uint64_t audit_export_close(void) { return audit_finish(function()); }

#endif
