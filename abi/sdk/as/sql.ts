// The sql capability: one call is one transaction.
import * as abi from "./abi";
import { Buffer, Bytes } from "./bytes";

/**
 * One transaction: steps with their cells. clear empties it for the next one. The
 * bytes of texts and blobs must not change before run returns.
 */
export class Script {
  private steps: Buffer = new Buffer();
  private cells: Buffer = new Buffer();
  private texts: Buffer = new Buffer();

  clear(): void {
    this.steps.clear();
    this.cells.clear();
    this.texts.clear();
  }

  /**
   * Starts a step of one of the kinds SQL_EXEC, SQL_QUERY, SQL_GUARD and SQL_MANY;
   * rows x columns cells follow, row by row.
   */
  step(kind: u32, sql: string, columns: u32, rows: u32): void {
    const from = this.texts.length;
    this.texts.putText(sql);
    // Texts and cells may move until the script runs: the step keeps offsets.
    this.steps.putU32(kind);
    this.steps.putU32(from);
    this.steps.putU32(this.texts.length - from);
    this.steps.putU32(columns);
    this.steps.putU32(rows);
    this.steps.putU32(this.cells.length);
  }

  private cell(type: u32, length: u32, value: u64): void {
    this.cells.putU32(type);
    this.cells.putU32(length);
    this.cells.putU64(value);
  }

  null(): void {
    this.cell(abi.SQL_NULL, 0, 0);
  }

  int(v: i64): void {
    this.cell(abi.SQL_INT, 0, <u64>v);
  }

  float(v: f64): void {
    this.cell(abi.SQL_FLOAT, 0, reinterpret<u64>(v));
  }

  /** A text; it should be UTF-8. */
  text(b: Bytes): void {
    this.cell(abi.SQL_TEXT, b.length, b.ptr);
  }

  blob(b: Bytes): void {
    this.cell(abi.SQL_BLOB, b.length, b.ptr);
  }

  /**
   * Runs the script once, in the mode SQL_READ or SQL_WRITE, and returns its rows.
   * They lie in out, for which room is reserved before. Capability sql.
   */
  run(mode: u32, out: Buffer): Rows {
    const end = this.steps.ptr + this.steps.length;
    for (let p = this.steps.ptr; p < end; p += abi.SQL_STEP_SIZE) {
      store<u32>(p + 4, <u32>this.texts.ptr + load<u32>(p + 4));
      store<u32>(p + 20, <u32>this.cells.ptr + load<u32>(p + 20));
    }
    const answer = abi.import_sql(mode, <u32>this.steps.ptr, this.steps.length / abi.SQL_STEP_SIZE, <u32>out.ptr, out.size);
    out.length = min(<u32>answer, out.size);
    this.clear();
    return new Rows(<u32>(answer >> 32), out);
  }
}

/**
 * The answer of a script. With the status SQL_DONE or SQL_GUARD_FAILED it has
 * rows: nextRow, then its cells from left to right. With another one the bytes are
 * the text of the error.
 */
export class Rows {
  /** The step and the number of columns of the row. */
  step: u32 = 0;
  columns: u32 = 0;
  private left: u32 = 0;
  private at: usize;
  private end: usize;
  private type: u32 = 0;

  constructor(public status: u32, public bytes: Bytes) {
    this.at = bytes.ptr;
    this.end = bytes.ptr + bytes.length;
  }

  private cell(): u32 {
    this.type = abi.SQL_NULL;
    if (this.left == 0 || this.end - this.at < 8) {
      this.left = 0;
      return 0;
    }
    this.left--;
    this.type = load<u32>(this.at);
    const n = <u32>min(<usize>load<u32>(this.at + 4), this.end - this.at - 8);
    this.at += 8 + n;
    return n;
  }

  /** Goes to the next row. What was not read of the row before is passed over. */
  nextRow(): bool {
    while (this.left > 0) this.cell();
    if (this.end - this.at < 8) return false;
    this.step = load<u32>(this.at);
    this.columns = load<u32>(this.at + 4);
    this.left = this.columns;
    this.at += 8;
    return true;
  }

  /** The next cell as an integer; 0 if it is none. */
  nextInt(): i64 {
    const n = this.cell();
    return this.type == abi.SQL_INT && n == 8 ? load<i64>(this.at - 8) : 0;
  }

  /** The next cell as a floating-point number; 0 if it is none. */
  nextFloat(): f64 {
    const n = this.cell();
    return this.type == abi.SQL_FLOAT && n == 8 ? load<f64>(this.at - 8) : 0;
  }

  /** The next cell as a text or blob; null if it is neither. */
  nextBytes(): Bytes | null {
    const n = this.cell();
    return this.type == abi.SQL_TEXT || this.type == abi.SQL_BLOB ? new Bytes(this.at - n, n) : null;
  }
}
