package meter

import "fmt"

// Error says why a module was refused, and where in it. Every error that
// Rewrite returns is one.
type Error struct {
	// Offset is where in the module the refused thing stands, in bytes from
	// its beginning.
	Offset int
	// Func is the index of the function whose body is refused, imports
	// counted first as WebAssembly does, or -1 outside of any body.
	Func int
	// Limit names what was exceeded, a field of Options if it is one of those;
	// "" where the module is malformed, invalid or beyond WebAssembly 2.0.
	Limit string
	// Reason is the refusal in words.
	Reason string
}

func (e *Error) Error() string {
	where := fmt.Sprintf("offset %#x", e.Offset)
	if e.Func >= 0 {
		where = fmt.Sprintf("function %d, offset %#x", e.Func, e.Offset)
	}
	return fmt.Sprintf("rewrite module: %s: %s", where, e.Reason)
}
