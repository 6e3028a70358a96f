/* Uses all of the SDK and appends what came of it. */
#include "audit_host.h"

static audit_buffer url, out, answer, cells, head;

#define TEXT(literal) audit_put(&out, AUDIT_STR(literal))

static void field(audit_bytes b) {
    audit_put_byte(&out, ' ');
    audit_put(&out, b);
}

static void number(uint64_t v) {
    audit_put_byte(&out, ' ');
    audit_put_number(&out, v);
}

static void hex(const uint8_t *p, uint32_t n) {
    static const char digits[] = "0123456789abcdef";
    audit_put_byte(&out, ' ');
    for (uint32_t i = 0; p && i < n; i++) {
        audit_put_byte(&out, (uint8_t)digits[p[i] >> 4]);
        audit_put_byte(&out, (uint8_t)digits[p[i] & 15]);
    }
}

static int same(const uint8_t *a, const uint8_t *b, uint32_t n) { return audit_equal(audit_span(a, n), audit_span(b, n)); }

static audit_answer open_sink(audit_bytes config) {
    audit_json j = audit_json_of(config);
    url.n = 0;
    while (audit_json_next(&j))
        if (!audit_equal(j.key, AUDIT_STR("url")) || !audit_json_text(j.value, &url)) return audit_bad_config(AUDIT_STR("no url"));
    audit_log(AUDIT_LOG_INFO, AUDIT_STR("opened"));
    return audit_ok(0);
}

static void events(const audit_batch *b) {
    TEXT("batch");
    number(b->id), number(b->attempt), number(b->count), number(b->first_seq), hex(b->queue, 16), number(b->lines.n);
    TEXT("\n");
    for (uint32_t i = 0; i < b->count; i++) {
        audit_event e = audit_event_at(b, i);
        uint8_t sum[AUDIT_HASH_SIZE];
        audit_sha256(sum, e.payload);
        TEXT("event");
        number(e.seq), field(e.id), field(e.agent), field(e.type), field(e.timestamp), field(e.key_id), field(e.level), field(e.payload);
        hex(e.payload_hash, 32), hex(e.digest, 32), hex(e.signature, 64);
        number((e.flags & AUDIT_FLAG_MINTED) != 0), number(same(sum, e.payload_hash, 32));
        TEXT("\n");
    }
}

static void small(void) {
    TEXT("kv");
    number(audit_kv_set(AUDIT_STR("k"), AUDIT_STR("value")));
    answer.n = 0;
    audit_room(&answer, AUDIT_MAX_KV_VALUE);
    audit_result r = audit_kv_get(AUDIT_STR("k"), answer.p, answer.size);
    number(r.status), field(r.bytes), number(audit_kv_delete(AUDIT_STR("k"))), number(audit_kv_delete(AUDIT_STR("k")));
    r = audit_kv_get(AUDIT_STR("k"), answer.p, answer.size);
    number(r.status), number(r.bytes.n), number(audit_kv_set(AUDIT_STR(""), AUDIT_STR("x")));
    uint8_t a[16], b[16];
    audit_random(a, 16), audit_random(b, 16);
    TEXT("\nrandom");
    number(!same(a, b, 16)), number(audit_now() > 1700000000000000000u);
    TEXT("\n");
}

static void database(const audit_batch *b) {
    cells.n = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        audit_event e = audit_event_at(b, i);
        audit_cell row[] = {audit_cell_int((int64_t)e.seq), audit_cell_text(e.id), audit_cell_blob(audit_span(e.payload_hash, 32)), audit_cell_null(), audit_cell_float(1.5)};
        audit_put(&cells, audit_span(row, sizeof row));
    }
    audit_step steps[] = {
        audit_sql_step(AUDIT_SQL_EXEC, AUDIT_STR("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b, c, d, e)"), NULL, 0, 0),
        audit_sql_step(AUDIT_SQL_MANY, AUDIT_STR("INSERT INTO t (a, b, c, d, e) VALUES"), (audit_cell *)cells.p, 5, b->count),
        audit_sql_step(AUDIT_SQL_QUERY, AUDIT_STR("SELECT a, b, c, d, e, -a FROM t ORDER BY a"), NULL, 0, 0),
    };
    answer.n = 0;
    audit_room(&answer, 65536);
    audit_result r = audit_sql(AUDIT_SQL_WRITE, steps, 3, answer.p, answer.size);
    TEXT("sql");
    number(r.status);
    audit_rows rows = audit_rows_of(r);
    while (audit_next_row(&rows)) {
        TEXT("\nrow");
        number(rows.step), number(rows.columns), number((uint64_t)audit_next_int(&rows)), field(audit_next_bytes(&rows));
        audit_bytes blob = audit_next_bytes(&rows);
        hex(blob.p, blob.n), number(audit_next_bytes(&rows).n), number((uint64_t)(audit_next_float(&rows) * 2)), number((uint64_t)-audit_next_int(&rows));
    }
    audit_cell none = audit_cell_int(0);
    audit_step guard = audit_sql_step(AUDIT_SQL_GUARD, AUDIT_STR("SELECT count(*) FROM t"), &none, 1, 1);
    r = audit_sql(AUDIT_SQL_READ, &guard, 1, answer.p, answer.size);
    rows = audit_rows_of(r);
    TEXT("\nguard");
    number(r.status), number(audit_next_row(&rows)), number((uint64_t)audit_next_int(&rows)), number((uint64_t)audit_next_int(&rows));
    audit_step wrong = audit_sql_step(AUDIT_SQL_QUERY, AUDIT_STR("SELEC 1"), NULL, 0, 0);
    r = audit_sql(AUDIT_SQL_READ, &wrong, 1, answer.p, answer.size);
    TEXT("\nwrong");
    number(r.status), field(r.bytes);
    TEXT("\n");
}

static void request(const audit_batch *b) {
    answer.n = head.n = 0;
    audit_room(&answer, 65536);
    audit_put(&head, AUDIT_STR("POST ")), audit_put(&head, audit_written(&url)), audit_put(&head, AUDIT_STR("\nX-Probe: 1\n"));
    audit_http_answer a = audit_http(audit_written(&head), b->lines, answer.p, answer.size);
    TEXT("http");
    number(a.status), number(a.code), number(a.flags), number(a.redirects), number(a.full);
    field(audit_http_field(&a, AUDIT_STR("x-answer"))), field(audit_http_field(&a, AUDIT_STR("x-none"))), field(a.body);
    a = audit_http(AUDIT_STR("GET http://203.0.113.1/\n"), audit_span(NULL, 0), answer.p, answer.size);
    TEXT("\nrefused");
    number(a.status), number(a.reason.n > 0);
    TEXT("\n");
}

static audit_answer deliver(audit_batch b) {
    if (b.attempt == 99) audit_event_at(&b, b.count);
    if (b.attempt == 98) return audit_because(audit_busy(7, AUDIT_STR("locked")), AUDIT_REASON_LOCKED);
    out.n = 0;
    events(&b), small(), database(&b), request(&b);
    audit_metric(AUDIT_METRIC_RACES, 3);
    uint32_t status = audit_append(audit_written(&out));
    if (status != AUDIT_STATUS_DONE) return audit_retry(1000, AUDIT_STR("append"));
    if (b.count < 2) return audit_ok(b.count);
    audit_verdict(1, AUDIT_OUTCOME_REJECT, AUDIT_STR("not “this” one"));
    audit_place places[3] = {0};
    for (uint32_t i = 0; i < 3; i += 2) {
        audit_event e = audit_event_at(&b, i);
        places[i].sequence = e.seq;
        places[i].flags = i == 0 ? AUDIT_PLACE_STORED_NOW : 0;
        __builtin_memcpy(places[i].row_hash, e.digest, AUDIT_HASH_SIZE);
    }
    audit_places(places, 3);
    return audit_partial(b.count - 1);
}

static audit_answer flush(void) {
    audit_log(AUDIT_LOG_WARN, AUDIT_STR("flushed"));
    return audit_ok(0);
}

static audit_answer close_sink(void) {
    audit_log(AUDIT_LOG_ERROR, AUDIT_STR("closed"));
    return audit_ok(0);
}

AUDIT_SINK(open_sink, deliver)
AUDIT_FLUSH(flush)
AUDIT_CLOSE(close_sink)
