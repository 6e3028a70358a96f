//go:build unix

package main

import (
	le "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A daemon is killed while its queue is full: the next one tells in the ledger
// how many events it refused.
func TestGapOutlivesAKill(t *testing.T) {
	config := home(t, `#disk_bytes = "4GiB"`, `disk_bytes = "1MiB"`, `#max_event = "1MiB"`, `max_event = "16KiB"`,
		`#busy_timeout = "1s"`, `busy_timeout = "10ms"`)
	release := lockLedger(t, config)
	c := spawn(t, config)
	refused := uint64(0)
	for n := 0; refused == 0; n++ {
		_, body := numbered(fmt.Sprint("e", n, "-"), 400)
		r, _ := c.send(t, "/v1/events?ack=accepted", body)
		if r.StatusCode == 503 {
			refused = uint64(c.scrape(t)["audit_host_queue_refused_total"])
		}
	}
	mark := filepath.Join(filepath.Dir(config), "state", "queue", "durable")
	until(t, "the count is in the mark", func() bool {
		b, err := os.ReadFile(mark)
		if err != nil {
			t.Fatal(err)
		}
		return le.LittleEndian.Uint64(b[176:]) == refused || le.LittleEndian.Uint64(b[4096+176:]) == refused
	})
	c.signal(t, syscall.SIGKILL)
	<-c.done
	release()
	c = spawn(t, config)
	until(t, "there is room", func() bool {
		r, _ := c.send(t, "/v1/events?ack=ledger", refusal("after"))
		return r.StatusCode == 200
	})
	c.signal(t, syscall.SIGTERM)
	if st := c.status(); !st.Exited() || st.ExitStatus() != 0 {
		t.Fatalf("status %v", st)
	}
	told := uint64(0)
	for line := range strings.Lines(must(t, 0, "", "tail", "-c", config, "--json", "-n", "100000").stdout) {
		var row struct {
			EventType string `json:"event_type"`
			Payload   struct {
				Action struct {
					Sources map[string]struct{ Refused uint64 }
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if row.EventType == "audit.gap" {
			told += row.Payload.Action.Sources["unknown"].Refused
		}
	}
	if told != refused {
		t.Errorf("the ledger tells of %d refused events, want %d", told, refused)
	}
	verified(t, config)
}
