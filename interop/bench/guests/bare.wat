;; Takes a batch from its inbox: bare wazero's part of the price of a call.
(module
  (memory (export "memory") 16)
  (func (export "inbox") (result i32) (i32.const 1024))
  (func (export "deliver") (param i32) (result i32)
    (i32.load offset=8 (i32.const 1024))))
