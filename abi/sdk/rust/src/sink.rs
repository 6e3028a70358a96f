//! What a sink implements, its answers, and the exports.

use core::cell::UnsafeCell;

use crate::abi::*;
use crate::frame::Batch;
use crate::host;
use crate::memory::Buffer;

/// A sink. The host calls it from one thread, and never again after a panic: the
/// next batch meets a fresh instance, which remembers nothing.
pub trait Sink: Sized {
    /// Gets the configuration as JSON, before the first batch; an error is
    /// `Answer::bad_config`, `retry` or `busy`.
    fn open(config: &[u8]) -> Result<Self, Answer>;

    /// Stores a batch. The same events may come again, in the same batch or
    /// another.
    fn deliver(&mut self, batch: &Batch) -> Answer;

    /// Makes durable what was held back.
    fn flush(&mut self) -> Answer {
        Answer::ok(0)
    }

    /// The sink is closed. Not called on an instance that is thrown away.
    fn close(&mut self) -> Answer {
        Answer::ok(0)
    }
}

/// An outcome with its argument. What is said with it about the batch goes to the
/// host as the answer is made: make one and return it.
#[must_use]
pub struct Answer {
    outcome: u32,
    argument: u32,
    reason: u32,
}

impl Answer {
    fn new(outcome: u32, argument: u32, why: &str) -> Answer {
        if !why.is_empty() {
            host::verdict(WHOLE_BATCH, outcome, why);
        }
        Answer { outcome, argument, reason: REASON_OTHER }
    }

    /// All `n` events are stored.
    pub fn ok(n: usize) -> Answer {
        Answer::new(OUTCOME_OK, n as u32, "")
    }

    /// `n` events are stored, each of the others got a `host::verdict`.
    pub fn partial(n: usize) -> Answer {
        Answer::new(OUTCOME_PARTIAL, n as u32, "")
    }

    /// Nothing was stored, the same batch is wanted again after `ms`.
    pub fn retry(ms: u32, why: &str) -> Answer {
        Answer::new(OUTCOME_RETRY, ms, why)
    }

    /// Nothing was stored: what the sink writes to is not to be had now.
    pub fn busy(ms: u32, why: &str) -> Answer {
        Answer::new(OUTCOME_BUSY, ms, why)
    }

    /// Nothing was stored, and never will be.
    pub fn reject(why: &str) -> Answer {
        Answer::new(OUTCOME_REJECT, 0, why)
    }

    /// The configuration is refused. From `open` only.
    pub fn bad_config(why: &str) -> Answer {
        Answer::new(OUTCOME_BAD_CONFIG, 0, why)
    }

    /// Adds `REASON_LOCKED` or another to an answer that says that something went
    /// wrong: metrics and readiness go by it, and the text is for people.
    pub fn because(self, reason: u32) -> Answer {
        Answer { reason, ..self }
    }

    fn pack(self) -> u64 {
        (self.reason as u64) << 48 | (self.outcome as u64) << 32 | self.argument as u64
    }
}

/// The one sink of a module, with its inbox. For the macro `sink` only.
pub struct Slot<S> {
    sink: UnsafeCell<Option<S>>,
    inbox: UnsafeCell<Buffer>,
}

// SAFETY: the module has no threads, and the host makes no call while another
// runs.
unsafe impl<S> Sync for Slot<S> {}

impl<S: Sink> Slot<S> {
    pub const fn new() -> Self {
        Slot { sink: UnsafeCell::new(None), inbox: UnsafeCell::new(Buffer::new()) }
    }

    pub fn reserve(&self, n: u32) -> u32 {
        // SAFETY: as for Sync; no borrow outlives a call.
        let inbox = unsafe { &mut *self.inbox.get() };
        if n > MAX_FRAME || !inbox.renew(n as usize) {
            return 0;
        }
        inbox.address()
    }

    fn sent(&self, n: u32) -> &[u8] {
        // SAFETY: as above.
        unsafe { &*self.inbox.get() }.written(n as usize)
    }

    #[allow(clippy::mut_from_ref)]
    fn sink(&self) -> &mut S {
        // SAFETY: as above.
        unsafe { &mut *self.sink.get() }.as_mut().expect("called before audit_open")
    }

    pub fn open(&self, n: u32) -> u64 {
        match S::open(self.sent(n)) {
            Ok(s) => {
                // SAFETY: as above.
                unsafe { *self.sink.get() = Some(s) };
                Answer::ok(0).pack()
            }
            Err(answer) => answer.pack(),
        }
    }

    pub fn deliver(&self, n: u32) -> u64 {
        // The host wrote the frame, so no repetition mends it, and a panic is seen.
        let batch = Batch::parse(self.sent(n)).expect("malformed batch frame");
        self.sink().deliver(&batch).pack()
    }

    pub fn flush(&self) -> u64 {
        self.sink().flush().pack()
    }

    pub fn close(&self) -> u64 {
        self.sink().close().pack()
    }
}

/// Exports a type that implements `Sink` as the sink of the module.
#[macro_export]
macro_rules! sink {
    ($sink:ty) => {
        static AUDIT_SINK: $crate::Slot<$sink> = $crate::Slot::new();

        #[no_mangle]
        pub extern "C" fn audit_abi_1() {}

        #[no_mangle]
        pub extern "C" fn audit_reserve(n: u32) -> u32 {
            AUDIT_SINK.reserve(n)
        }

        #[no_mangle]
        pub extern "C" fn audit_open(n: u32) -> u64 {
            AUDIT_SINK.open(n)
        }

        #[no_mangle]
        pub extern "C" fn audit_deliver(n: u32) -> u64 {
            AUDIT_SINK.deliver(n)
        }

        #[no_mangle]
        pub extern "C" fn audit_flush() -> u64 {
            AUDIT_SINK.flush()
        }

        #[no_mangle]
        pub extern "C" fn audit_close() -> u64 {
            AUDIT_SINK.close()
        }
    };
}
