// Command goguest is the Go guest of the tests of package host: it does what
// the payload of the first event of a batch says, and stores nothing.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

type sink struct {
	config string
	calls  int
	kept   [][]byte
}

func init() { guest.Register(&sink{}) }

func main() {}

func (s *sink) Open(config []byte) guest.Answer {
	s.config = string(config)
	switch {
	case strings.Contains(s.config, "refuse"):
		return guest.BadConfig("this configuration says refuse")
	case strings.Contains(s.config, "trap"):
		panic("audit_open panics")
	}
	return guest.OK(0)
}

func (s *sink) Deliver(batch abi.View) guest.Answer {
	s.calls++
	do := ""
	if batch.Len() > 0 {
		do = string(batch.At(0).Payload())
	}
	switch {
	case strings.Contains(do, "panic"):
		var nothing *sink
		nothing.calls++
	case strings.Contains(do, "message"):
		panic("a message of the guest\nwith a second line")
	case strings.Contains(do, "eat"):
		for {
			s.kept = append(s.kept, make([]byte, 1<<20))
		}
	case strings.Contains(do, "exit"):
		os.Exit(7)
	case strings.Contains(do, "spin"):
		for {
			s.calls++
		}
	case strings.Contains(do, "sleep"):
		time.Sleep(time.Hour)
	case strings.Contains(do, "garbage"):
		// Work that makes garbage, for the collector of the guest.
		for i := range batch.Len() {
			_ = bytes.Repeat(batch.At(i).Payload(), 20)
		}
	case strings.Contains(do, "look"):
		return guest.Retry(0, s.look())
	case strings.HasPrefix(do, "answer "): // three numbers
		var n [3]int
		for i, word := range strings.Fields(do)[1:] {
			n[i], _ = strconv.Atoi(word)
		}
		return guest.Answer{Outcome: abi.Outcome(n[0]), Reason: abi.Reason(n[1]), Arg: uint32(n[2]), Message: "in other words"}
	case strings.HasPrefix(do, "places "): // outcome; then for each entry its sequence, flags and first byte of the hash
		words := strings.Fields(do)[1:]
		number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
		var list []abi.Place
		for i := 1; i+2 < len(words); i += 3 {
			p := abi.Place{Sequence: number(words[i]), Flags: uint32(number(words[i+1]))}
			p.RowHash[0] = byte(number(words[i+2]))
			list = append(list, p)
		}
		for range 1 + strings.Count(do, "twice") {
			guest.Places(list)
		}
		switch words[0] {
		case "ok":
			return guest.OK(batch.Len())
		case "partial": // all but the second
			guest.Verdict(1, abi.Reject, "this one")
			return guest.Partial(batch.Len() - 1)
		}
		return guest.Busy(0, "")
	case strings.Contains(do, "verdicts"):
		for i := range batch.Len() {
			if i%3 == 0 {
				guest.Verdict(uint32(i), abi.Reject, "every third")
			}
		}
		return guest.Partial(batch.Len() - (batch.Len()+2)/3)
	}
	return guest.OK(batch.Len())
}

// look reports what a guest can see of the world around it.
func (s *sink) look() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	_, file := os.ReadFile("/etc/passwd")
	_, dir := os.ReadDir(".")
	text := "args " + strings.Join(os.Args, ",") + " env " + strings.Join(os.Environ(), ",") +
		" random " + hex.EncodeToString(b[:]) + " year " + time.Now().UTC().Format("2006")
	if file == nil || dir == nil {
		text += " FILES"
	}
	return text
}
