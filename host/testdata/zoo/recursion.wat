;; Calls itself twice, 40 deep, without any loop: 2^40 calls.
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
      (call $twice (i32.const 40))
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024))))
  (func $twice (param $n i32)
    (if (i32.eqz (local.get $n)) (then (return)))
    (call $twice (i32.sub (local.get $n) (i32.const 1)))
    (call $twice (i32.sub (local.get $n) (i32.const 1)))))
