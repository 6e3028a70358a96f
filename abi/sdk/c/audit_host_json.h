/* A modest reader of JSON: the members of one object, one after the other.
 * Included by audit_host.h.
 *
 *     audit_json j = audit_json_of(config);
 *     while (audit_json_next(&j))
 *         if (!audit_equal(j.key, AUDIT_STR("prefix")) || !audit_json_text(j.value, &prefix)) return bad;
 *     if (j.bad) return bad;
 *
 * A value is the text as it stands; one that is an object is read by another
 * audit_json_of. Keys are compared as they stand, escapes included. */
#ifndef AUDIT_HOST_JSON_H
#define AUDIT_HOST_JSON_H

/* How many arrays and objects may lie within each other: as many as in an event. */
#define AUDIT_JSON_DEPTH 128

typedef struct {
    audit_bytes key;   /* without its quotation marks */
    audit_bytes value; /* its first byte tells what it is: { [ " t f n, or a number */
    int bad;           /* set when the text is no object */
    const uint8_t *p, *end;
    int begun;
} audit_json;

AUDIT_INLINE const uint8_t *audit_json_space(const uint8_t *p, const uint8_t *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

/* audit_json_string passes over a string and returns null if it is none. */
AUDIT_INLINE const uint8_t *audit_json_string(const uint8_t *p, const uint8_t *end) {
    if (p == end || *p++ != '"') return NULL;
    for (; p < end && *p >= ' '; p++) {
        if (*p == '"') return p + 1;
        if (*p == '\\' && ++p == end) return NULL;
    }
    return NULL;
}

/* audit_json_value passes over any value, without looking into numbers. */
AUDIT_INLINE const uint8_t *audit_json_value(const uint8_t *p, const uint8_t *end) {
    uint8_t open[AUDIT_JSON_DEPTH]; /* the bracket that is awaited */
    uint32_t depth = 0;
    for (;;) {
        p = audit_json_space(p, end);
        if (p == end) return NULL;
        if (*p == '{' || *p == '[') {
            if (depth == AUDIT_JSON_DEPTH) return NULL;
            open[depth++] = *p++ == '{' ? '}' : ']';
            p = audit_json_space(p, end);
            if (p == end) return NULL;
            if (*p != open[depth - 1]) goto member;
        } else if (*p == '"') {
            if (!(p = audit_json_string(p, end))) return NULL;
            goto after;
        } else {
            const uint8_t *from = p;
            while (p < end && (((*p | 32) >= 'a' && (*p | 32) <= 'z') || (*p >= '0' && *p <= '9') || *p == '+' || *p == '-' || *p == '.')) p++;
            if (p == from) return NULL;
            goto after;
        }
        depth--;
        p++;
    after:
        if (depth == 0) return p;
        p = audit_json_space(p, end);
        if (p == end) return NULL;
        if (*p == open[depth - 1]) {
            depth--;
            p++;
            goto after;
        }
        if (*p++ != ',') return NULL;
    member:
        if (open[depth - 1] == '}') {
            p = audit_json_string(audit_json_space(p, end), end);
            if (!p) return NULL;
            p = audit_json_space(p, end);
            if (p == end || *p++ != ':') return NULL;
        }
    }
}

AUDIT_INLINE audit_json audit_json_of(audit_bytes text) {
    audit_json j = {{NULL, 0}, {NULL, 0}, 1, text.p, text.p + text.n, 0};
    j.p = audit_json_space(j.p, j.end);
    /* The whole of it is passed over first: what is read later is well formed. */
    const uint8_t *end = j.p < j.end && *j.p == '{' ? audit_json_value(j.p, j.end) : NULL;
    if (end && audit_json_space(end, j.end) == j.end) {
        j.bad = 0;
        j.p++;
        j.end = end - 1;
    }
    return j;
}

/* audit_json_next finds the next member; false when there is none, or the text
 * is no object. */
AUDIT_INLINE int audit_json_next(audit_json *j) {
    if (j->bad) return 0;
    j->p = audit_json_space(j->p, j->end);
    if (j->p == j->end) return 0;
    if (j->begun) j->p = audit_json_space(j->p + 1, j->end); /* the comma */
    j->begun = 1;
    const uint8_t *key = j->p, *stop = audit_json_string(key, j->end);
    j->key = audit_span(key + 1, (uint32_t)(stop - key) - 2);
    const uint8_t *value = audit_json_space(audit_json_space(stop, j->end) + 1, j->end);
    j->p = audit_json_value(value, j->end);
    j->value = audit_span(value, (uint32_t)(j->p - value));
    return 1;
}

AUDIT_INLINE int audit_json_hex(const uint8_t *p, uint32_t *out) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i] | 32;
        if (p[i] >= '0' && p[i] <= '9') v = v << 4 | (uint32_t)(p[i] - '0');
        else if (c >= 'a' && c <= 'f') v = v << 4 | (uint32_t)(c - 'a' + 10);
        else return 0;
    }
    *out = v;
    return 1;
}

AUDIT_INLINE void audit_put_utf8(audit_buffer *b, uint32_t c) {
    if (c < 0x80) {
        audit_put_byte(b, (uint8_t)c);
        return;
    }
    if (c < 0x800) {
        audit_put_byte(b, (uint8_t)(0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            audit_put_byte(b, (uint8_t)(0xe0 | c >> 12));
        } else {
            audit_put_byte(b, (uint8_t)(0xf0 | c >> 18));
            audit_put_byte(b, (uint8_t)(0x80 | (c >> 12 & 63)));
        }
        audit_put_byte(b, (uint8_t)(0x80 | (c >> 6 & 63)));
    }
    audit_put_byte(b, (uint8_t)(0x80 | (c & 63)));
}

/* audit_json_text appends a string without its escapes; false if the value is
 * none. A half of a surrogate pair becomes U+FFFD. */
AUDIT_INLINE int audit_json_text(audit_bytes value, audit_buffer *out) {
    const uint8_t *p = value.p, *end = p + value.n;
    if (value.n < 2 || audit_json_string(p, end) != end) return 0;
    for (p++, end--; p < end; p++) {
        if (*p != '\\') {
            audit_put_byte(out, *p);
            continue;
        }
        uint32_t c, low;
        switch (*++p) {
        case 'b': c = '\b'; break;
        case 'f': c = '\f'; break;
        case 'n': c = '\n'; break;
        case 'r': c = '\r'; break;
        case 't': c = '\t'; break;
        case '"': case '\\': case '/': c = *p; break;
        case 'u':
            if (end - p < 5 || !audit_json_hex(p + 1, &c)) return 0;
            p += 4;
            if (c >= 0xd800 && c < 0xdc00 && end - p > 6 && p[1] == '\\' && p[2] == 'u' && audit_json_hex(p + 3, &low) && low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                p += 6;
            } else if (c >= 0xd800 && c < 0xe000) {
                c = 0xfffd;
            }
            break;
        default: return 0;
        }
        audit_put_utf8(out, c);
    }
    return 1;
}

#endif
