/* A sink that writes a line for each event into the file of its append grant:
 * id, tab, type, tab, payload. Configuration: {"prefix": TEXT}, which comes
 * before each line. */
#include "audit_host.h"

/* How many bytes are collected before they are appended. A record is whole
 * lines, so a longer line is appended as it is. */
#define PORTION (256u << 10)

static audit_buffer prefix, lines;

static audit_answer open_sink(audit_bytes config) {
    prefix.n = 0;
    audit_json j = audit_json_of(config);
    while (audit_json_next(&j)) {
        if (!audit_equal(j.key, AUDIT_STR("prefix")) || prefix.n || !audit_json_text(j.value, &prefix))
            return audit_bad_config(AUDIT_STR("wanted {\"prefix\": TEXT} or {}"));
    }
    if (j.bad) return audit_bad_config(AUDIT_STR("wanted {\"prefix\": TEXT} or {}"));
    for (uint32_t i = 0; i < prefix.n; i++)
        if (prefix.p[i] == '\n') return audit_bad_config(AUDIT_STR("prefix holds a line feed"));
    return audit_ok(0);
}

static audit_answer deliver(audit_batch batch) {
    lines.n = 0;
    for (uint32_t i = 0; i < batch.count; i++) {
        audit_event e = audit_event_at(&batch, i);
        audit_put(&lines, audit_written(&prefix));
        audit_put(&lines, e.id);
        audit_put_byte(&lines, '\t');
        audit_put(&lines, e.type);
        audit_put_byte(&lines, '\t');
        audit_put(&lines, e.payload);
        audit_put_byte(&lines, '\n');
        if (lines.n < PORTION && i + 1 < batch.count) continue;
        if (audit_append(audit_written(&lines)) != AUDIT_STATUS_DONE)
            return audit_busy(1000, AUDIT_STR("append failed; the host's log says why"));
        lines.n = 0;
    }
    /* The host makes the lines durable before it believes this. */
    return audit_ok(batch.count);
}

AUDIT_SINK(open_sink, deliver)
