/* A sink that keeps id and payload of each event in a table of its own, in the
 * database of its sql grant. An event that comes twice is stored once. It has no
 * configuration: {}. */
#include "audit_host.h"

/* The rule that makes the sink idempotent: a row whose id is there already is
 * passed over. */
#define TABLE                                                        \
    AUDIT_STR("CREATE TABLE IF NOT EXISTS events (\n"                \
              "\tid      TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE,\n" \
              "\tpayload TEXT NOT NULL\n"                            \
              ")")

/* How long to be left alone when the database is not to be had, in ms. */
#define PAUSE 1000u

/* SQLITE_CONSTRAINT, the lower byte of its extended codes. */
#define SQLITE_CONSTRAINT 19u

static audit_buffer cells;
static uint8_t out[1024]; /* for the text of an error */

static audit_answer open_sink(audit_bytes config) {
    audit_json j = audit_json_of(config);
    if (audit_json_next(&j) || j.bad) return audit_bad_config(AUDIT_STR("wanted {}"));
    return audit_ok(0);
}

static audit_cell *next_cell(void) {
    audit_room(&cells, sizeof(audit_cell));
    audit_cell *c = (audit_cell *)(cells.p + cells.n);
    cells.n += sizeof(audit_cell);
    return c;
}

/* A batch is stored in one transaction, which the host begins and commits. It may
 * come again: after a BUSY, after a crash, after an answer that was lost. */
static audit_answer deliver(audit_batch batch) {
    if (batch.count == 0) return audit_ok(0);
    cells.n = 0;
    for (uint32_t i = 0; i < batch.count; i++) {
        audit_event e = audit_event_at(&batch, i);
        *next_cell() = audit_cell_text(e.id);
        *next_cell() = audit_cell_text(e.payload);
    }
    audit_step steps[] = {
        audit_sql_step(AUDIT_SQL_EXEC, TABLE, NULL, 0, 0),
        /* The host adds the placeholders, for 16 rows at a time. */
        audit_sql_step(AUDIT_SQL_MANY, AUDIT_STR("INSERT INTO events (id, payload) VALUES"), (const audit_cell *)cells.p, 2, batch.count),
    };
    audit_result r = audit_sql(AUDIT_SQL_WRITE, steps, 2, out, sizeof out);
    if (r.status == AUDIT_SQL_DONE) return audit_ok(batch.count);
    /* A refused batch comes again in halves, so that in the end only the event that
     * is at fault is a dead letter. A lock, a full disk, another table of that
     * name: waiting or the operator mends it. */
    if (r.status == AUDIT_SQL_TOO_LARGE || (r.status <= 0xffff && (r.status & 0xff) == SQLITE_CONSTRAINT)) return audit_reject(r.bytes);
    return audit_busy(PAUSE, r.bytes);
}

AUDIT_SINK(open_sink, deliver)
