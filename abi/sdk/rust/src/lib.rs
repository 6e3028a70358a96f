//! Sinks for audit-host in Rust, without `std` and without dependencies: ABI 1.
//!
//! A sink is a type that implements [`Sink`], and one line that exports it:
//!
//! ```ignore
//! #![no_std]
//! use audit_host::{Answer, Batch, Sink};
//!
//! struct Mine;
//!
//! impl Sink for Mine {
//!     fn open(_config: &[u8]) -> Result<Self, Answer> { Ok(Mine) }
//!     fn deliver(&mut self, batch: &Batch) -> Answer { Answer::ok(batch.len()) }
//! }
//!
//! audit_host::sink!(Mine);
//! ```
//!
//! Guaranteed: a batch is checked once, whole, before `deliver` is called, and a
//! malformed one panics; the module imports those host functions that are called
//! and no others, but for `fd_write`, by which a panic tells what it is. Memory
//! comes from `memory.grow` alone and is used again, so that it does not creep.
//!
//! Not guaranteed: anything about a value that is dropped by a panic. A panic is a
//! trap, and the instance is thrown away.
#![no_std]

#[cfg(not(target_arch = "wasm32"))]
compile_error!("a sink is built for --target wasm32-unknown-unknown");

pub mod abi;
mod frame;
pub mod host;
pub mod json;
mod memory;
mod panic;
mod sink;
pub mod sql;

pub use frame::{Batch, Event};
pub use memory::Buffer;
pub use sink::{Answer, Sink};

#[doc(hidden)]
pub use sink::Slot;
