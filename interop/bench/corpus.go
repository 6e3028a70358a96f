package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
)

// eventSize is the length of an event's text in bytes, the source system's
// average with its JSON.
const eventSize = 400

// native is the text of event i, of size bytes, with an id or without.
func native(i int, id string, size int) string {
	if id != "" {
		id = fmt.Sprintf(`"id":%q,`, id)
	}
	head := fmt.Sprintf(`{%s"agent_id":"agent:%d","action":{"kind":"bash","command":"rm -rf /srv/data/%d","cwd":"/`, id, i%50, i)
	tail := fmt.Sprintf(`"},"decision":{"decision":"refuse","rule_id":"R%03d","reason":"destructive commands outside of the sandbox are not allowed"}}`, i%17)
	return head + strings.Repeat("d", max(0, size-len(head)-len(tail))) + tail
}

// corpus writes n events as JSON Lines.
func corpus(path string, n, size int, random bool) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	uuid.EnableRandPool()
	for i := range n {
		id := ""
		if random {
			id = uuid.NewString()
		}
		if _, err := w.WriteString(native(i, id, size) + "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// randomBytes for payloads whose content does not matter.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func mkdir(path string) error { return os.Mkdir(path, 0o700) }
