;; A verdict whose text lies past the memory.
(module
  (import "audit" "verdict" (func $verdict (param i32 i32 i32 i32)))
  (memory (export "memory") 2)
  (func (export "audit_abi_1"))
  (func $reserve (export "audit_reserve") (param i32) (result i32)
    (i32.const 1024))
  (func (export "audit_open") (param i32) (result i64)
    (i64.const 0))
  (func $deliver (export "audit_deliver") (param i32) (result i64)
    ;; A batch of one event is treated badly, any other is stored.
    (if (i32.eq (i32.load offset=8 (i32.const 1024)) (i32.const 1)) (then
      (call $verdict (i32.const 0) (i32.const 3) (i32.const 131070) (i32.const 16))
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
