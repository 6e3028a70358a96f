/* A sink that posts batches to one URL, as lines of JSON: the event's payload
 * with its id as the first member. Configuration: {"url": TEXT}, which the http
 * grant has to allow. */
#include "audit_host.h"

/* How long to be left alone when the server is not to be had, in ms. */
#define PAUSE 1000u

static audit_buffer url, head, body, why;
static uint8_t answer[16 << 10]; /* longer answers are cut */

static int begins_with(audit_bytes text, audit_bytes with) {
    return text.n > with.n && audit_equal(audit_span(text.p, with.n), with);
}

static int read_config(audit_bytes config) {
    url.n = 0;
    audit_json j = audit_json_of(config);
    while (audit_json_next(&j))
        if (!audit_equal(j.key, AUDIT_STR("url")) || url.n || !audit_json_text(j.value, &url)) return 0;
    for (uint32_t i = 0; i < url.n; i++)
        if (url.p[i] <= ' ') return 0;
    audit_bytes u = audit_written(&url);
    return !j.bad && (begins_with(u, AUDIT_STR("http://")) || begins_with(u, AUDIT_STR("https://")));
}

static audit_answer open_sink(audit_bytes config) {
    if (!read_config(config)) return audit_bad_config(AUDIT_STR("wanted {\"url\": TEXT}, a URL that begins with http:// or https://"));
    head.n = 0;
    audit_put(&head, AUDIT_STR("POST "));
    audit_put(&head, audit_written(&url));
    audit_put(&head, AUDIT_STR("\nContent-Type: application/x-ndjson\n"));
    return audit_ok(0);
}

/* put_line adds {"id":"...", and the rest of the payload, which is an object. */
static void put_line(audit_event e) {
    audit_put(&body, AUDIT_STR("{\"id\":\""));
    for (uint32_t i = 0; i < e.id.n; i++) { /* it has no control characters */
        if (e.id.p[i] == '"' || e.id.p[i] == '\\') audit_put_byte(&body, '\\');
        audit_put_byte(&body, e.id.p[i]);
    }
    audit_put_byte(&body, '"');
    if (e.payload.n > 2) { /* more than {} */
        audit_put_byte(&body, ',');
        audit_put(&body, audit_span(e.payload.p + 1, e.payload.n - 1));
    } else {
        audit_put_byte(&body, '}');
    }
    audit_put_byte(&body, '\n');
}

/* A batch may come again: after a BUSY, after a crash, after an answer that was
 * lost. So each line carries the id. */
static audit_answer deliver(audit_batch batch) {
    if (batch.count == 0) return audit_ok(0);
    body.n = why.n = 0;
    for (uint32_t i = 0; i < batch.count; i++) put_line(audit_event_at(&batch, i));
    audit_http_answer a = audit_http(audit_written(&head), audit_written(&body), answer, sizeof answer);
    /* Of what is too large nothing was sent. A refused batch comes again in
     * halves, so that in the end only an event that is too large by itself is a
     * dead letter. No connection, no answer, not granted: waiting or the operator
     * mends it. */
    if (a.status == AUDIT_STATUS_TOO_LARGE) return audit_reject(a.reason);
    if (a.status != AUDIT_STATUS_DONE) return audit_busy(PAUSE, a.reason);
    if (a.code >= 200 && a.code <= 299) return audit_ok(batch.count);
    audit_put(&why, AUDIT_STR("HTTP "));
    audit_put_number(&why, a.code);
    audit_put_byte(&why, ' ');
    audit_put(&why, audit_span(a.body.p, a.body.n < 200 ? a.body.n : 200));
    if (a.code == 400 || a.code == 413 || a.code == 422) return audit_reject(audit_written(&why));
    return audit_busy(PAUSE, audit_written(&why));
}

AUDIT_SINK(open_sink, deliver)
