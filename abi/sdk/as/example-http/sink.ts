// A sink that posts batches to one URL, as lines of JSON: the event's payload
// with its id as the first member. Configuration: {"url": TEXT}, which the http
// grant has to allow.
import { Answer, Batch, Buffer, Bytes, Event, http, Members, register, Sink, STATUS_DONE, STATUS_TOO_LARGE, text } from "./audit-host-sdk";

// How long to be left alone when the server is not to be had, in ms.
const PAUSE: u32 = 1000;

// Longer answers are cut.
const ANSWER: u32 = 16 << 10;

class Poster extends Sink {
  private url: Buffer = new Buffer();
  private head: Buffer = new Buffer();
  private body: Buffer = new Buffer();
  private out: Buffer = new Buffer();

  /** Reads the configuration; false if it is not what is wanted. */
  private read(config: Bytes): bool {
    const url = this.url;
    url.clear();
    const members = new Members(config);
    while (members.next()) {
      if (!members.key.equals("url") || url.length > 0 || !text(members.value, url)) return false;
    }
    for (let i: u32 = 0; i < url.length; i++) {
      if (url.at(i) <= 0x20) return false;
    }
    const s = url.toString();
    return !members.bad && (s.startsWith("http://") || s.startsWith("https://"));
  }

  open(config: Bytes): Answer {
    if (!this.read(config)) return Answer.badConfig('wanted {"url": TEXT}, a URL that begins with http:// or https://');
    const head = this.head;
    head.clear();
    head.putText("POST ");
    head.put(this.url);
    head.putText("\nContent-Type: application/x-ndjson\n");
    return Answer.ok(0);
  }

  /** Adds {"id":"…", and the rest of the payload, which is an object. */
  private putLine(event: Event): void {
    const body = this.body;
    body.putText('{"id":"');
    for (let i: u32 = 0; i < event.id.length; i++) {
      const c = event.id.at(i); // no control character
      if (c == 0x22 || c == 0x5c) body.putByte(0x5c);
      body.putByte(c);
    }
    body.putByte(0x22);
    const payload = event.payload;
    if (payload.length > 2) {
      // More than {}.
      body.putByte(0x2c);
      body.put(new Bytes(payload.ptr + 1, payload.length - 1));
    } else {
      body.putByte(0x7d);
    }
    body.putByte(0x0a);
  }

  // A batch may come again: after a BUSY, after a crash, after an answer that was
  // lost. So each line carries the id.
  deliver(batch: Batch): Answer {
    if (batch.count == 0) return Answer.ok(0);
    this.body.clear();
    for (let i: u32 = 0; i < batch.count; i++) this.putLine(batch.event(i));
    this.out.clear();
    this.out.reserve(ANSWER);
    const a = http(this.head, this.body, this.out);
    // Nothing was sent. A refused batch comes again in halves, so that in the end
    // only an event that is too large by itself is a dead letter.
    if (a.status == STATUS_TOO_LARGE) return Answer.reject(a.reason.toString());
    // No connection, no answer, not granted: waiting or the operator mends it.
    if (a.status != STATUS_DONE) return Answer.busy(PAUSE, a.reason.toString());
    if (a.code >= 200 && a.code <= 299) return Answer.ok(batch.count);
    const why = "HTTP " + a.code.toString() + " " + new Bytes(a.body.ptr, min<u32>(a.body.length, 200)).toString();
    if (a.code == 400 || a.code == 413 || a.code == 422) return Answer.reject(why);
    return Answer.busy(PAUSE, why);
  }
}

register(new Poster());

export * from "./audit-host-sdk/exports";
