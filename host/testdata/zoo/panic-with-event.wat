;; Panics, and its last words are the event that it was given.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 256) "panic: ")
  (func (export "audit_abi_1"))
  (func (export "audit_reserve") (param i32) (result i32) (i32.const 1024))
  (func (export "audit_open") (param i32) (result i64) (i64.const 0))
  (func (export "audit_deliver") (param i32) (result i64)
    ;; A batch of one event is treated badly, any other is stored.
    (if (i32.eq (i32.load offset=8 (i32.const 1024)) (i32.const 1)) (then
      ;; Two pieces: the mark of a panic, and the payload region of the frame.
      (i32.store (i32.const 512) (i32.const 256))
      (i32.store (i32.const 516) (i32.const 7))
      (i32.store (i32.const 520) (i32.add (i32.const 1024) (i32.load (i32.const 1056))))
      (i32.store (i32.const 524) (i32.load (i32.const 1060)))
      (drop (call $write (i32.const 2) (i32.const 512) (i32.const 2) (i32.const 768)))
      unreachable
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
