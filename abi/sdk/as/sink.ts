// What a sink implements, and its answers.
import * as abi from "./abi";
import { Batch } from "./frame";
import { Bytes } from "./bytes";

/** An outcome with its argument, and what is said about the batch. */
export class Answer {
  /** REASON_LOCKED or another. */
  reason: u32 = abi.REASON_OTHER;

  constructor(public outcome: u32, public argument: u32, public message: string = "") {}

  /** All n events are stored. From open, flush and close: ok(0). */
  static ok(n: u32): Answer {
    return new Answer(abi.OUTCOME_OK, n);
  }

  /** n events are stored, each of the others got a verdict. */
  static partial(n: u32): Answer {
    return new Answer(abi.OUTCOME_PARTIAL, n);
  }

  /** Nothing was stored, the same batch is wanted again after ms. */
  static retry(ms: u32, why: string): Answer {
    return new Answer(abi.OUTCOME_RETRY, ms, why);
  }

  /** Nothing was stored: what the sink writes to is not to be had now. */
  static busy(ms: u32, why: string): Answer {
    return new Answer(abi.OUTCOME_BUSY, ms, why);
  }

  /** Nothing was stored, and never will be. */
  static reject(why: string): Answer {
    return new Answer(abi.OUTCOME_REJECT, 0, why);
  }

  /** The configuration is refused. From open only. */
  static badConfig(why: string): Answer {
    return new Answer(abi.OUTCOME_BAD_CONFIG, 0, why);
  }

  /**
   * Adds REASON_LOCKED or another to an answer that says that something went wrong:
   * metrics and readiness go by it, and the text is for people.
   */
  because(reason: u32): Answer {
    this.reason = reason;
    return this;
  }
}

/**
 * A sink. The host calls it from one thread, and never again after it threw: the
 * next batch meets a fresh instance, which remembers nothing.
 */
export abstract class Sink {
  /** Gets the configuration as JSON, before the first batch. */
  abstract open(config: Bytes): Answer;

  /** Stores a batch. The same events may come again, in the same batch or another. */
  abstract deliver(batch: Batch): Answer;

  /** Makes durable what was held back. */
  flush(): Answer {
    return Answer.ok(0);
  }

  /** The sink is closed. Not called on an instance that is thrown away. */
  close(): Answer {
    return Answer.ok(0);
  }
}

let registered: Sink | null = null;

/** Makes a sink the module's. Call it once, at the top level. */
export function register(sink: Sink): void {
  registered = sink;
}

/** The module's sink. */
export function sink(): Sink {
  const s = registered;
  if (s == null) throw new Error("no sink; call register at the top level");
  return s;
}
