;; 100,000 log lines, and then it stores the batch.
(module
  (import "audit" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (func (export "audit_abi_1"))
  (func $reserve (export "audit_reserve") (param i32) (result i32)
    (i32.const 1024))
  (func (export "audit_open") (param i32) (result i64)
    (i64.const 0))
  (func $deliver (export "audit_deliver") (param i32) (result i64) (local $n i32)
    ;; A batch of one event is treated badly, any other is stored.
    (if (i32.eq (i32.load offset=8 (i32.const 1024)) (i32.const 1)) (then
      (local.set $n (i32.const 100000))
      (loop $again
        (call $log (i32.const 1) (i32.const 1024) (i32.const 64))
        (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
