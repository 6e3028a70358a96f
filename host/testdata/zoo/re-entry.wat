;; Calls its own exports from within audit_deliver.
(module
  (memory (export "memory") 2)
  (func (export "audit_abi_1"))
  (func $reserve (export "audit_reserve") (param i32) (result i32)
    (i32.const 1024))
  (func (export "audit_open") (param i32) (result i64)
    (i64.const 0))
  (func $deliver (export "audit_deliver") (param i32) (result i64)
    ;; A batch of one event is treated badly, any other is stored.
    (if (i32.eq (i32.load offset=8 (i32.const 1024)) (i32.const 1)) (then
      (drop (call $reserve (i32.const 100)))
      (drop (call $deliver (i32.const 100)))
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
