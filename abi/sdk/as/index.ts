// Sinks for audit-host in AssemblyScript, without dependencies: ABI 1.
//
// A sink is a class, and two lines that make it the module's:
//
//     import { Answer, Batch, Bytes, register, Sink } from "./audit-host-sdk";
//
//     class Mine extends Sink {
//       open(config: Bytes): Answer { return Answer.ok(0); }
//       deliver(batch: Batch): Answer { return Answer.ok(batch.count); }
//     }
//
//     register(new Mine());
//     export * from "./audit-host-sdk/exports";
//
// Guaranteed: a batch is checked once, whole, before deliver is called, and a
// malformed one throws; a delivery allocates nothing that the sink does not, and
// what the sink allocates is collected after each call; the module imports those
// host functions that are called and no others, but for fd_write, by which what
// is thrown tells what it is.
//
// Not guaranteed: that a wild address traps. load and store check nothing.
export * from "./abi";
export { Buffer, Bytes } from "./bytes";
export { Batch, Event } from "./frame";
export { append, http, HttpAnswer, kvDelete, kvGet, kvSet, log, metric, now, Places, random, sha256, verdict } from "./host";
export { Members, text } from "./json";
export { Answer, register, Sink } from "./sink";
export { Rows, Script } from "./sql";
