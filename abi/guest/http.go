package guest

import (
	"unsafe"

	"github.com/audit-host/audit-host/abi"
)

// Request is what [HTTP] asks for.
type Request struct {
	Method, URL string
	// Header has name and value of each field. A value may hold
	// {{secret NAME}}, which the host replaces: a plugin never sees a secret.
	Header [][2]string
	// Body is sent as it lies; abi.View.Lines may be given.
	Body []byte
}

// head writes the request's head as the ABI wants it. Line feeds would make
// two lines of one: the host refuses what that makes.
func (r *Request) head() []byte {
	n := len(r.Method) + len(r.URL) + 2
	for _, f := range r.Header {
		n += len(f[0]) + len(f[1]) + 3
	}
	b := make([]byte, 0, n)
	b = append(append(append(append(b, r.Method...), ' '), r.URL...), '\n')
	for _, f := range r.Header {
		b = append(append(append(append(b, f[0]...), ": "...), f[1]...), '\n')
	}
	return b
}

// HTTP makes a request of one of the hosts of the grant; redirects are followed
// where the grant allows it. out takes the answer, whose slices are parts of
// it; one that does not fit is cut (abi.HTTPCut). Unless the status is
// abi.StatusDone there is no answer but a text that says why. After
// abi.StatusTimeout and StatusUnavailable it is unknown whether the server acted
// on the request. It needs the capability "http".
func HTTP(r *Request, out []byte) (abi.HTTPAnswer, abi.Status, string) {
	status, n := abi.SplitStatus(runHTTP(r, out))
	text := out[:min(n, uint32(len(out)))]
	if status != abi.StatusDone {
		return abi.HTTPAnswer{}, status, string(text)
	}
	a, ok := abi.ParseHTTPAnswer(text)
	if !ok {
		panic("guest: the host wrote a malformed http answer")
	}
	return a, status, ""
}

// Append adds a record to the file of the grant: one or more whole lines, each
// ended by a line feed. It is written whole or not at all and lies in one file.
// The host makes it durable before it accepts an OK or PARTIAL of the running
// call; the plugin waits for nothing. After anything but abi.StatusDone the
// batch is to be answered with Busy, and appended again when it comes again. It
// needs the capability "append".
func Append(record []byte) abi.Status {
	status, _ := abi.SplitStatus(hostAppend(unsafe.Pointer(unsafe.SliceData(record)), uint32(len(record))))
	return status
}
