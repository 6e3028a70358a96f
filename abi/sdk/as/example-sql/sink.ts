// A sink that keeps id and payload of each event in a table of its own, in the
// database of its sql grant. An event that comes twice is stored once. It has no
// configuration: {}.
import { Answer, Batch, Buffer, Bytes, Members, register, Script, Sink, SQL_DONE, SQL_EXEC, SQL_MANY, SQL_TOO_LARGE, SQL_WRITE } from "./audit-host-sdk";

// The rule that makes the sink idempotent: a row whose id is there already is
// passed over.
const TABLE = `CREATE TABLE IF NOT EXISTS events (
  id      TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE,
  payload TEXT NOT NULL
)`;

// How long to be left alone when the database is not to be had, in ms.
const PAUSE: u32 = 1000;

// SQLITE_CONSTRAINT, the lower byte of its extended codes.
const SQLITE_CONSTRAINT: u32 = 19;

// Room for the text of an error.
const ANSWER: u32 = 1024;

class Table extends Sink {
  private script: Script = new Script();
  private out: Buffer = new Buffer();

  open(config: Bytes): Answer {
    const members = new Members(config);
    if (members.next() || members.bad) return Answer.badConfig("wanted {}");
    return Answer.ok(0);
  }

  // A batch is stored in one transaction, which the host begins and commits. It
  // may come again: after a BUSY, after a crash, after an answer that was lost.
  deliver(batch: Batch): Answer {
    if (batch.count == 0) return Answer.ok(0);
    const script = this.script;
    script.clear();
    script.step(SQL_EXEC, TABLE, 0, 0);
    // The host adds the placeholders, for 16 rows at a time.
    script.step(SQL_MANY, "INSERT INTO events (id, payload) VALUES", 2, batch.count);
    for (let i: u32 = 0; i < batch.count; i++) {
      const event = batch.event(i);
      script.text(event.id);
      script.text(event.payload);
    }
    this.out.clear();
    this.out.reserve(ANSWER);
    const answer = script.run(SQL_WRITE, this.out);
    if (answer.status == SQL_DONE) return Answer.ok(batch.count);
    const why = answer.bytes.toString();
    // A refused batch comes again in halves, so that in the end only the event that
    // is at fault is a dead letter. A lock, a full disk, another table of that
    // name: waiting or the operator mends it.
    if (answer.status == SQL_TOO_LARGE || (answer.status <= 0xffff && (answer.status & 0xff) == SQLITE_CONSTRAINT)) return Answer.reject(why);
    return Answer.busy(PAUSE, why);
  }
}

register(new Table());

export * from "./audit-host-sdk/exports";
