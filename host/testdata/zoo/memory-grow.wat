;; Takes all the memory it gets, writes to it, and traps when there is no more.
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
      (loop $more
        (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1)) (then
          (i32.store8 (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)) (i32.const 1))
          (br $more))))
      (unreachable)
    ))
    (i64.extend_i32_u (i32.load offset=8 (i32.const 1024)))))
