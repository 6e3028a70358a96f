// A sink that writes a line for each event into the file of its append grant:
// id, tab, type, tab, payload. Configuration: {"prefix": TEXT}, which comes
// before each line.
import { Answer, append, Batch, Buffer, Bytes, Members, register, Sink, STATUS_DONE, text } from "./audit-host-sdk";

// How many bytes are collected before they are appended. A record is whole
// lines, so a longer line is appended as it is.
const PORTION: u32 = 256 << 10;

const TAB: u8 = 0x09;
const LINE_FEED: u8 = 0x0a;

class Lines extends Sink {
  private prefix: Buffer = new Buffer();
  private lines: Buffer = new Buffer();

  /** Reads the configuration; false if it is not what is wanted. */
  private read(config: Bytes): bool {
    this.prefix.clear();
    const members = new Members(config);
    while (members.next()) {
      if (!members.key.equals("prefix") || this.prefix.length > 0 || !text(members.value, this.prefix)) return false;
    }
    for (let i: u32 = 0; i < this.prefix.length; i++) {
      if (this.prefix.at(i) == LINE_FEED) return false;
    }
    return !members.bad;
  }

  open(config: Bytes): Answer {
    if (!this.read(config)) return Answer.badConfig('wanted {"prefix": TEXT} or {}, TEXT without a line feed');
    return Answer.ok(0);
  }

  deliver(batch: Batch): Answer {
    const lines = this.lines;
    lines.clear();
    for (let i: u32 = 0; i < batch.count; i++) {
      const event = batch.event(i);
      lines.put(this.prefix);
      lines.put(event.id);
      lines.putByte(TAB);
      lines.put(event.type);
      lines.putByte(TAB);
      lines.put(event.payload);
      lines.putByte(LINE_FEED);
      if (lines.length < PORTION && i + 1 < batch.count) continue;
      if (append(lines) != STATUS_DONE) return Answer.busy(1000, "append failed; the host's log says why");
      lines.clear();
    }
    // The host makes the lines durable before it believes this.
    return Answer.ok(batch.count);
  }
}

register(new Lines());

export * from "./audit-host-sdk/exports";
