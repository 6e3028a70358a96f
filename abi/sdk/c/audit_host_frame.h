/* The batch frame. Included by audit_host.h. */
#ifndef AUDIT_HOST_FRAME_H
#define AUDIT_HOST_FRAME_H

/* audit_batch is a batch that was checked. Its bytes are valid until deliver
 * returns. */
typedef struct {
    const uint8_t *frame;
    uint32_t header_size, entry_size; /* of this frame */
    uint32_t count;      /* number of events */
    uint32_t attempt;    /* 1 for the first delivery of this batch */
    uint64_t id;         /* the same for every attempt */
    uint64_t first_seq;  /* position of the first event in the queue */
    const uint8_t *queue; /* id of the queue, 16 bytes */
    audit_bytes lines;   /* the payloads: one canonical JSON event per line, each ended by a line feed */
} audit_batch;

/* audit_event is one event. */
typedef struct {
    uint64_t seq;          /* position in the queue */
    audit_bytes id;        /* the idempotency key */
    audit_bytes agent;     /* who was refused */
    audit_bytes type;      /* for example governance.refusal */
    audit_bytes timestamp; /* RFC 3339 */
    audit_bytes key_id;    /* of the signing key, empty for an unsigned event */
    audit_bytes level;     /* attestation level */
    audit_bytes payload;   /* canonical JSON, without its line feed */
    uint32_t flags;        /* AUDIT_FLAG_SIGNED, AUDIT_FLAG_MINTED */
    const uint8_t *payload_hash; /* SHA-256 of payload */
    const uint8_t *digest;       /* event digest, 32 bytes */
    const uint8_t *signature;    /* 64 bytes, null for an unsigned event */
} audit_event;

/* audit_batch_of checks a frame, and traps if it is malformed: the host wrote
 * it, so no repetition mends it, and a trap is seen. The sizes of the header and
 * of an entry are the frame's own; what is beyond those known here is ignored. */
AUDIT_INLINE audit_batch audit_batch_of(audit_bytes raw) {
    const uint8_t *p = raw.p;
    if (raw.n < AUDIT_HEADER_SIZE || audit_u32(p + AUDIT_HEADER_MAGIC) != AUDIT_FRAME_MAGIC) __builtin_trap();
    uint32_t header = audit_u32(p + AUDIT_HEADER_HEADER_SIZE) & 0xffff, size = audit_u32(p + AUDIT_HEADER_HEADER_SIZE) >> 16;
    if (header < AUDIT_HEADER_SIZE || size < AUDIT_ENTRY_SIZE) __builtin_trap();
    audit_batch b = {p, header, size, audit_u32(p + AUDIT_HEADER_COUNT), audit_u32(p + AUDIT_HEADER_ATTEMPT), audit_u64(p + AUDIT_HEADER_BATCH_ID),
                     audit_u64(p + AUDIT_HEADER_FIRST_SEQ), p + AUDIT_HEADER_QUEUE, {NULL, 0}};
    /* 64 bits, so that no sum of two offsets wraps. */
    uint64_t total = audit_u32(p + AUDIT_HEADER_TOTAL), index = header + (uint64_t)b.count * size;
    uint64_t lines = audit_u32(p + AUDIT_HEADER_PAYLOAD), length = audit_u32(p + AUDIT_HEADER_PAYLOAD + 4);
    if (total != raw.n || index > total || lines < index || lines + length != total) __builtin_trap();
    b.lines = audit_span(p + lines, (uint32_t)length);
    for (uint32_t i = 0; i < b.count; i++) {
        const uint8_t *entry = p + header + i * size;
        for (uint32_t at = AUDIT_ENTRY_ID; at <= AUDIT_ENTRY_PAYLOAD; at += 8) {
            uint64_t from = audit_u32(entry + at), end = from + audit_u32(entry + at + 4) + (at == AUDIT_ENTRY_PAYLOAD);
            if (from < index || end > total) __builtin_trap();
        }
    }
    return b;
}

AUDIT_INLINE audit_bytes audit_text_at(const uint8_t *frame, const uint8_t *entry, uint32_t at) {
    return audit_span(frame + audit_u32(entry + at), audit_u32(entry + at + 4));
}

/* audit_event_at returns event i; it traps from count on. */
AUDIT_INLINE audit_event audit_event_at(const audit_batch *b, uint32_t i) {
    if (i >= b->count) __builtin_trap();
    const uint8_t *f = b->frame, *x = f + b->header_size + i * b->entry_size;
    uint32_t flags = audit_u32(x + AUDIT_ENTRY_FLAGS);
    return (audit_event){
        audit_u64(x + AUDIT_ENTRY_SEQ),
        audit_text_at(f, x, AUDIT_ENTRY_ID),
        audit_text_at(f, x, AUDIT_ENTRY_AGENT),
        audit_text_at(f, x, AUDIT_ENTRY_TYPE),
        audit_text_at(f, x, AUDIT_ENTRY_TIMESTAMP),
        audit_text_at(f, x, AUDIT_ENTRY_KEY_ID),
        audit_text_at(f, x, AUDIT_ENTRY_LEVEL),
        audit_text_at(f, x, AUDIT_ENTRY_PAYLOAD),
        flags,
        x + AUDIT_ENTRY_PAYLOAD_HASH,
        x + AUDIT_ENTRY_DIGEST,
        flags & AUDIT_FLAG_SIGNED ? x + AUDIT_ENTRY_SIGNATURE : NULL,
    };
}

#endif
