//! A panic ends in a trap. What it says goes to standard error before that, where
//! the host keeps it for the crash record: "panic: panicked at …".

use core::fmt::Write;
use core::panic::PanicInfo;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn fd_write(fd: u32, vectors: *const [u32; 2], n: u32, written: *mut u32) -> u32;
}

/// What is left of a text, on the stack: there may be no memory.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let n = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let mut text = Text { bytes: [0; 512], len: 0 };
    let _ = writeln!(text, "panic: {}", info);
    let vector = [text.bytes.as_ptr() as u32, text.len as u32];
    let mut written = 0;
    // SAFETY: the host reads the text and writes a number.
    unsafe { fd_write(2, &vector, 1, &mut written) };
    core::arch::wasm32::unreachable()
}
