;; An inbox for a batch that begins 8 bytes before the end of the address space.
(module
  (memory (export "memory") 2)
  (func (export "audit_abi_1"))
  (func $reserve (export "audit_reserve") (param i32) (result i32)
    (select (i32.const -8) (i32.const 1024) (i32.gt_u (local.get 0) (i32.const 100))))
  (func (export "audit_open") (param i32) (result i64)
    (i64.const 0))
  (func $deliver (export "audit_deliver") (param i32) (result i64)
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
