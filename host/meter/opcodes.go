package meter

// The opcodes that rewriting has to tell apart. All others are described by
// the tables below, enough to step over them and to follow the height of the
// operand stack.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32Ne        = 0x47
	opI32LtS       = 0x48
	opI32LtU       = 0x49
	opI32GtU       = 0x4b
	opI32LeU       = 0x4d
	opI64Ne        = 0x52
	opI64LtS       = 0x53
	opI64LeU       = 0x58
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32DivS      = 0x6d
	opI32RemU      = 0x70
	opI64DivS      = 0x7f
	opI64RemU      = 0x82
	opI32TruncF32S = 0xa8
	opI32TruncF64U = 0xab
	opI64TruncF32S = 0xae
	opI64TruncF64U = 0xb1
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Mul       = 0x7e
	opI64And       = 0x83
	opI64Shl       = 0x86
	opI64ShrS      = 0x87
	opI64ShrU      = 0x88
	opI32WrapI64   = 0xa7
	opI64ExtendS   = 0xac
	opI64Extend32S = 0xc4
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	prefixMisc     = 0xfc
	prefixVec      = 0xfd

	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17

	vecStore = 11
	vecConst = 12

	typeI32     = 0x7f
	typeI64     = 0x7e
	typeFuncref = 0x70
	blockVoid   = 0x40
)

// proposal names the feature behind an opcode that is not WebAssembly 2.0, so
// that a refusal says what the guest was built with.
func proposal(op byte) string {
	switch {
	case op >= 0x06 && op <= 0x0a, op == 0x18, op == 0x19, op == 0x1f:
		return "exception handling"
	case op == 0x12, op == 0x13:
		return "tail calls"
	case op == 0x14, op == 0x15, op >= 0xd3 && op <= 0xd6:
		return "typed function references"
	case op == 0xfb:
		return "garbage collection"
	case op == 0xfe:
		return "threads"
	}
	return "an unknown opcode"
}

// accessSize is how many bytes the loads and stores from 0x28 to 0x3e move.
var accessSize = [...]int64{4, 8, 4, 8, 1, 1, 2, 2, 1, 1, 2, 2, 4, 4, 4, 8, 4, 8, 1, 2, 1, 2, 4}

// plainEffect is by how many values an opcode without index immediates (0x28
// to 0xc4 without those handled by name) changes the height of the operand
// stack.
func plainEffect(op byte) int {
	switch {
	case op >= 0x28 && op <= 0x35: // loads
		return 0
	case op >= 0x36 && op <= 0x3e: // stores
		return -2
	case op == 0x45, op == 0x50: // eqz
		return 0
	case op >= 0x46 && op <= 0x66: // comparisons
		return -1
	case op >= 0x67 && op <= 0x69, op >= 0x79 && op <= 0x7b: // clz, ctz, popcnt
		return 0
	case op >= 0x6a && op <= 0x78, op >= 0x7c && op <= 0x8a: // integer arithmetic
		return -1
	case op >= 0x8b && op <= 0x91, op >= 0x99 && op <= 0x9f: // float unary
		return 0
	case op >= 0x92 && op <= 0x98, op >= 0xa0 && op <= 0xa6: // float arithmetic
		return -1
	}
	return 0 // conversions and sign extension, 0xa7 to 0xc4
}

// vecReserved are the holes in the vector opcodes up to 0xff.
var vecReserved = [256]bool{
	0x9a: true, 0xa2: true, 0xa5: true, 0xa6: true, 0xaf: true, 0xb0: true,
	0xb2: true, 0xb3: true, 0xb4: true, 0xbb: true, 0xc2: true, 0xc5: true,
	0xc6: true, 0xcf: true, 0xd0: true, 0xd2: true, 0xd3: true, 0xd4: true,
	0xe2: true, 0xee: true,
}

// vecShape gives the immediates of a vector opcode and its effect on the
// height of the operand stack.
func vecShape(sub uint32) (memarg bool, extra int, effect int) {
	switch {
	case sub <= 10, sub == 0x5c, sub == 0x5d: // loads
		return true, 0, 0
	case sub == vecStore:
		return true, 0, -2
	case sub == vecConst:
		return false, 16, 1
	case sub == 13: // i8x16.shuffle
		return false, 16, -1
	case sub >= 0x54 && sub <= 0x57: // load lane
		return true, 1, -1
	case sub >= 0x58 && sub <= 0x5b: // store lane
		return true, 1, -2
	case sub == 0x17, sub == 0x1a, sub == 0x1c, sub == 0x1e, sub == 0x20, sub == 0x22:
		return false, 1, -1 // replace lane
	case sub >= 0x15 && sub <= 0x21: // extract lane
		return false, 1, 0
	case sub >= 0x0f && sub <= 0x14, vecUnary[sub]:
		return false, 0, 0
	case sub == 0x52: // bitselect
		return false, 0, -2
	}
	return false, 0, -1
}

// vecUnary are the vector opcodes that take one operand and give one.
var vecUnary = [256]bool{
	0x4d: true, 0x53: true, 0x5e: true, 0x5f: true, 0x60: true, 0x61: true,
	0x62: true, 0x63: true, 0x64: true, 0x67: true, 0x68: true, 0x69: true,
	0x6a: true, 0x74: true, 0x75: true, 0x7a: true, 0x7c: true, 0x7d: true,
	0x7e: true, 0x7f: true, 0x80: true, 0x81: true, 0x83: true, 0x84: true,
	0x87: true, 0x88: true, 0x89: true, 0x8a: true, 0x94: true, 0xa0: true,
	0xa1: true, 0xa3: true, 0xa4: true, 0xa7: true, 0xa8: true, 0xa9: true,
	0xaa: true, 0xc0: true, 0xc1: true, 0xc3: true, 0xc4: true, 0xc7: true,
	0xc8: true, 0xc9: true, 0xca: true, 0xe0: true, 0xe1: true, 0xe3: true,
	0xec: true, 0xed: true, 0xef: true, 0xf8: true, 0xf9: true, 0xfa: true,
	0xfb: true, 0xfc: true, 0xfd: true, 0xfe: true, 0xff: true,
}
