//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A daemon whose log is not read, or whose log's reader has died, takes events as
// ever, and stops as ever.
func TestLogNobodyReads(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(map[bool]string{false: "a full pipe", true: "no reader"}[gone], func(t *testing.T) {
			t.Parallel()
			// The mock sink logs the ids of what it takes.
			config := home(t, "[dead_letters]", "[[sink]]\nname = \"mock\"\nplugin = \"sink-mock\"\nrequired = true\n\n[dead_letters]")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := exec.Command(os.Getenv(binary), "run", "-c", config)
			cmd.Stderr = w
			if err := errors.Join(cmd.Start(), w.Close()); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			kill := func() { _ = cmd.Process.Kill() } // it has ended, or hangs
			t.Cleanup(kill)
			defer time.AfterFunc(2*time.Minute, kill).Stop()
			d := &process{}
			for lines := bufio.NewScanner(r); d.url == "" && lines.Scan(); {
				if m := listening.FindStringSubmatch(lines.Text()); m != nil {
					d.url = "http://" + m[1]
				}
			}
			if gone {
				r.Close()
			}
			// Much more than a pipe holds, and than waits in memory.
			dropped, n := 0.0, 0
			for ; dropped == 0; n++ {
				var body strings.Builder
				for i := range 400 {
					body.WriteString(refusal(fmt.Sprintf("%0110d.%d", n, i)))
				}
				if a := d.post(t, "ledger", body.String()); a.Accepted != 400 {
					t.Fatalf("accepted %d", a.Accepted)
				}
				dropped = d.scrape(t)["audit_host_log_dropped_total"]
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("it ends with %v", err)
			}
			if v := verified(t, config); v.Rows != uint64(400*n) {
				t.Errorf("%d rows, want %d", v.Rows, 400*n)
			}
		})
	}
}
