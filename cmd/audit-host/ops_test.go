package main

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/control"
	"github.com/audit-host/audit-host/event"
)

// withSink is a pair for home: one more sink before [dead_letters].
func withSink(lines string) []string {
	return []string{"[dead_letters]", "[[sink]]\n" + lines + "\n\n[dead_letters]"}
}

// numbered are the native events with these ids.
func numbered(prefix string, n int) (ids []string, body string) {
	var b strings.Builder
	for i := range n {
		id := fmt.Sprintf("%s%05d", prefix, i)
		ids = append(ids, id)
		b.WriteString(refusal(id))
	}
	return ids, b.String()
}

var mockStored = regexp.MustCompile(`msg=plugin .*text=("stored.*")$`)

// storedByMock are the ids that sink-mock says it has stored, in order.
func storedByMock(t *testing.T, log string) []string {
	t.Helper()
	var ids []string
	for line := range strings.Lines(log) {
		if m := mockStored.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			text, err := strconv.Unquote(m[1])
			if err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			ids = append(ids, strings.Split(text, "\n")[1:]...)
		}
	}
	return ids
}

// sinksOf asks the daemon.
func sinksOf(t *testing.T, config string) map[string]control.Sink {
	t.Helper()
	all := map[string]control.Sink{}
	for line := range strings.Lines(must(t, 0, "", "sink", "list", "-c", config, "--json").stdout) {
		var s control.Sink
		decode(t, []byte(line), &s)
		all[s.Name] = s
	}
	return all
}

// until asks again and again until it holds, or until the test is out of time.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		if t.Context().Err() != nil {
			t.Fatalf("not before the end of the test: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func listed(t *testing.T, config string, args ...string) []letterJSON {
	t.Helper()
	var all []letterJSON
	for line := range strings.Lines(must(t, 0, "", append([]string{"dlq", "list", "-c", config, "--json"}, args...)...).stdout) {
		var l letterJSON
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// A plugin that traps on one poisonous event among 10,000: all others are stored
// in order, it becomes a dead letter after a few restarts, and lands when the
// plugin was mended. The ledger beside it does not notice.
func TestPoisonAmongTenThousand(t *testing.T) {
	t.Parallel()
	const n, batch = 10_000, 512
	config := home(t, withSink("name = \"mock\"\nplugin = \"sink-mock\"\nbatch_events = 512\nconfig.rules = [{do = \"trap\", ids = [\"e07321\"], text = \"poison\"}]")...)
	d := serve(t, config)
	ids, body := numbered("e", n)
	d.post(t, "accepted", body)
	var m map[string]float64
	until(t, "both sinks are done", func() bool {
		m = d.scrape(t)
		return m[`audit_host_appended_total{sink="ledger"}`] == n && m[`audit_host_pending{sink="mock"}`] == 0
	})
	if got := m[`audit_host_appended_total{sink="mock"}`]; got != n-1 {
		t.Errorf("the mock has %v", got)
	}
	if got, most := m[`audit_host_restarts_total{sink="mock"}`], float64(bits.Len(batch-1)+2); got < 2 || got > most {
		t.Errorf("%v restarts, at most %v are needed", got, most)
	}
	if m["audit_host_dead_letters_unresolved"] != 1 || m[`audit_host_dlq_landed_total{sink="mock"}`] != 1 || m[`audit_host_dlq_landed_total{sink="ledger"}`] != 0 {
		t.Errorf("dead letters: %v", m)
	}
	letters := listed(t, config)
	if len(letters) != 1 || letters[0].ID != "e07321" || letters[0].Outcome != "TRAP" || !strings.Contains(letters[0].Stderr, "sink-mock: poison") ||
		letters[0].Position != 7322 || len(letters[0].Plugin) != 64 || !strings.Contains(string(letters[0].Payload), "rm -rf") {
		t.Errorf("%+v", letters)
	}
	// Replayed while the plugin is as it was: it is refused again, and no harm.
	if r := must(t, exitDeadLetters, "", "dlq", "replay", "-c", config); !strings.Contains(r.stdout, "1  mock  refused  e07321") {
		t.Errorf("%s", r.stdout)
	}
	if m := d.scrape(t); m[`audit_host_replay_refused_total{sink="mock"}`] != 1 || m[`audit_host_parked{sink="mock"}`] != 0 || m[`audit_host_lost{sink="mock"}`] != 0 {
		t.Errorf("%v", m)
	}
	log := d.stop(t, exitDeadLetters)
	want := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "e07321" })
	if got := storedByMock(t, log); !slices.Equal(got, want) {
		t.Errorf("%d stored, %.200q…", len(got), got)
	}
	// Mended.
	edit(t, config, `ids = ["e07321"]`, `ids = ["none"]`)
	d = serve(t, config)
	must(t, 0, "", "dlq", "replay", "-c", config)
	must(t, 0, "", "dlq", "replay", "-c", config)
	m = d.scrape(t)
	if m[`audit_host_replayed_total{sink="mock"}`] != 1 || m["audit_host_dead_letters_resolved"] != 1 || m["audit_host_dead_letters_unresolved"] != 0 ||
		m[`audit_host_appended_total{sink="mock"}`] != 0 || m[`audit_host_appended_total{sink="ledger"}`] != 0 {
		t.Errorf("after the replay: %v", m)
	}
	if got := storedByMock(t, d.stop(t, 0)); !slices.Equal(got, []string{"e07321"}) {
		t.Errorf("replayed %q", got)
	}
	if v := verified(t, config); v.Rows != n {
		t.Errorf("%d rows", v.Rows)
	}
}

// A sink whose plugin ends at every batch, because its database is locked for
// longer than the plugin may take, parks within its budget. The other sink of the
// host takes its 10,000 events meanwhile. Ready tells; resume brings it back, and a
// replay those few events that were found guilty before the budget was spent.
func TestParkedSinkIsResumed(t *testing.T) {
	t.Parallel()
	const n = 10_000
	config := home(t, withSink("name = \"copy\"\nplugin = \"sink-sqlite\"\ndeadline = \"300ms\"\nmax_restarts = 3\n"+
		"grant.sql = {database = \"copy.db\", create = true, busy_timeout = \"20s\", time_limit = \"20s\"}")...)
	d := serve(t, config)
	d.post(t, "ledger", refusal("first")) // makes copy.db
	copied := filepath.Join(filepath.Dir(config), "copy.db")
	db, err := sqlite3.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	_, body := numbered("e", n)
	d.post(t, "durable", body)
	for line := range d.lines {
		if strings.Contains(line, "sink parked") {
			break
		}
	}
	until(t, "the ledger has all", func() bool { return sinksOf(t, config)["ledger"].Appended == n+1 })
	s := sinksOf(t, config)["copy"]
	if s.State != "parked" || !strings.Contains(s.Parked, "DEADLINE") || s.PendingEvents+s.DeadLettered != n || s.DeadLettered > 2 ||
		s.PendingBytes < n*100 || s.Oldest == nil || s.Restarts > 3*(10+2) {
		t.Errorf("%+v", s)
	}
	if got := string(d.request(t, "GET", "/-/ready", "", 503)); !strings.Contains(got, "sink copy is parked, its events are kept") ||
		!strings.Contains(got, "audit-host sink resume copy") || strings.Contains(got, "sink ledger") {
		t.Errorf("ready: %s", got)
	}
	text := must(t, 0, "", "sink", "list", "-c", config).stdout
	if !regexp.MustCompile(`(?m)^copy +parked +yes +999\d +\d+ +\S+ +\d+ +sink-sqlite \S+ \(\w{12}\) +"3 incidents`).MatchString(text) {
		t.Errorf("sink list:\n%s", text)
	}
	if r := must(t, exitDeadLetters, "", "dlq", "replay", "-c", config); !strings.Contains(r.stdout, `later  e00000  "the sink is parked: audit-host sink resume copy"`) {
		t.Errorf("replay: %s", r.stdout)
	}
	// Resumed before it is mended, it parks again and loses nothing.
	must(t, 0, "", "sink", "resume", "-c", config, "copy")
	for line := range d.lines {
		if strings.Contains(line, "sink parked") {
			break
		}
	}
	if r := must(t, exitFailed, "", "sink", "resume", "-c", config, "ledger"); !strings.Contains(r.stderr, `resume sink "ledger": it is not parked`) {
		t.Errorf("%s", r.stderr)
	}
	if r := must(t, exitFailed, "", "sink", "resume", "-c", config, "copi"); !strings.Contains(r.stderr, `did you mean "copy"?`) {
		t.Errorf("%s", r.stderr)
	}
	if err := db.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if r := must(t, 0, "", "sink", "resume", "-c", config, "copy"); r.stderr != "sink copy resumed\n" {
		t.Errorf("%s", r.stderr)
	}
	until(t, "the copy has all that was queued", func() bool { return sinksOf(t, config)["copy"].PendingEvents == 0 })
	d.post(t, "ledger", refusal("last"))
	dead := len(listed(t, config))
	if r := must(t, 0, "", "dlq", "replay", "-c", config); !strings.Contains(r.stderr, fmt.Sprintf("stored %d,", dead)) || dead == 0 || dead > 2*2 {
		t.Errorf("%d dead letters; replay: %s", dead, r.stderr)
	}
	if got := string(d.request(t, "GET", "/-/ready", "", 200)); got != `{"ready":true,"reasons":[]}`+"\n" {
		t.Errorf("ready: %s", got)
	}
	log := d.stop(t, exitDeadLetters)
	if strings.Count(log, "an operator resumed a sink") != 2 {
		t.Error("the log does not tell who resumed it")
	}
	if v := verified(t, config); v.Rows != n+2 {
		t.Errorf("the ledger has %d rows", v.Rows)
	}
	var v verdict
	decode(t, []byte(must(t, 0, "", "verify", copied, "--json", "--key", filepath.Join(filepath.Dir(config), "audit.pub")).stdout), &v)
	if !v.Verified || v.Rows != n+2 {
		t.Errorf("the copy: %+v", v)
	}
	if len(listed(t, config)) != 0 {
		t.Error("dead letters are open")
	}
}

// Under an id that is taken another content is a dead letter that names both
// digests, and its sender is told; the same content lands once and is answered as
// the first time.
func TestSameIDAgain(t *testing.T) {
	config := home(t)
	d := serve(t, config)
	first := d.post(t, "ledger", refusal("e1")).Events[0]
	if first.Status != event.StatusAppended {
		t.Fatalf("%+v", first)
	}
	if again := d.post(t, "ledger", refusal("e1")).Events[0]; again != first {
		t.Errorf("the same: %+v, the first time %+v", again, first)
	}
	other := strings.Replace(refusal("e1"), "rm -rf", "ls", 1)
	check := func(e event.Result) {
		t.Helper()
		// Which two it is, both hashes, the letter says: no text of a plugin goes to
		// who shows no token.
		if e.Status != event.StatusDeadLetter || !strings.Contains(e.Error, "audit-host dlq show") || e.Sequence != 0 || e.RowHash != "" {
			t.Errorf("another content: %+v", e)
		}
	}
	check(d.post(t, "ledger", other).Events[0])
	check(d.post(t, "ledger", other).Events[0]) // repeated, it is the same letter
	// Both in one request, and among others.
	both := d.post(t, "ledger", refusal("e2")+other+refusal("e1")+refusal("e3")).Events
	check(both[1])
	if both[0].Sequence != 2 || both[2].RowHash != first.RowHash || both[3].Sequence != 3 {
		t.Errorf("%+v", both)
	}
	// Without a time of its own a repetition has another one stamped on it, and is
	// the same event.
	stampless := strings.Replace(refusal("e4"), `,"timestamp":"2026-01-01T00:00:00Z"`, "", 1)
	four := d.post(t, "ledger", stampless).Events[0]
	if again := d.post(t, "ledger", stampless).Events[0]; again != four || four.Status != event.StatusAppended {
		t.Errorf("stamped twice: %+v, then %+v", four, again)
	}
	letters := listed(t, config)
	if len(letters) != 1 || letters[0].ID != "e1" || letters[0].Outcome != "REJECT" || !strings.Contains(letters[0].Reason, letters[0].PayloadHash) {
		t.Errorf("%+v", letters)
	}
	d.stop(t, exitDeadLetters)
	// The same through ingest.
	r := must(t, exitDeadLetters, refusal("e1")+other+strings.Replace(refusal("e3"), "rm -rf", "ls", 1)+refusal("e5"), "ingest", "-c", config, "--json", "-")
	if !strings.Contains(r.stdout, `"accepted":4,"rejected":0,"skipped":0,"appended":2,"dead_lettered":2,"remained":0`) {
		t.Errorf("%s", r.stdout)
	}
	if letters := listed(t, config); len(letters) != 2 || letters[1].ID != "e3" {
		t.Errorf("%+v", letters)
	}
	// A replay changes nothing: the ids are taken for good.
	must(t, exitDeadLetters, "", "dlq", "replay", "-c", config)
	if v := verified(t, config); v.Rows != 5 {
		t.Errorf("%d rows", v.Rows)
	}
}

// While the dead letters can't be written their events stay in the queue, and the
// operator is told; mended, each is a letter once, and what stood behind lands.
func TestDeadLettersThatCannotBeWritten(t *testing.T) {
	config := home(t, withSink("name = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"verdict\", ids = [\"bad\"], text = \"no\"}]")...)
	state := filepath.Join(filepath.Dir(config), "state")
	letters := filepath.Join(state, "dead-letters.db")
	d := serve(t, config)
	d.post(t, "ledger", refusal("e1"))
	// A directory stands where the file was: that keeps root out too, for whom
	// a mode does not count.
	if err := os.Rename(letters, letters+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(letters, 0o700); err != nil {
		t.Fatal(err)
	}
	d.post(t, "durable", refusal("bad")+refusal("e2"))
	for line := range d.lines {
		if strings.Contains(line, "store dead letters; their events are kept until it works") {
			break
		}
	}
	s := sinksOf(t, config)
	if m := s["mock"]; m.PendingEvents != 2 && m.PendingEvents != 1 || m.DeadLettered != 0 || !strings.Contains(m.LastError, "store dead letters") {
		t.Errorf("%+v", m)
	}
	until(t, "the ledger has all", func() bool { return sinksOf(t, config)["ledger"].Appended == 3 })
	until(t, "ready tells", func() bool {
		got := string(d.request(t, "GET", "/-/ready", "", 200))
		return strings.Contains(got, "sink mock is waiting: audit-host sink list tells why") && strings.HasSuffix(got, `"degraded":true}`+"\n")
	})
	if err := os.Remove(letters); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(letters+".away", letters); err != nil {
		t.Fatal(err)
	}
	until(t, "the letter is stored", func() bool {
		m := sinksOf(t, config)["mock"]
		return m.DeadLettered == 1 && m.PendingEvents == 0
	})
	if l := listed(t, config); len(l) != 1 || l[0].ID != "bad" {
		t.Errorf("%+v", l)
	}
	d.stop(t, exitDeadLetters)
	if v := verified(t, config); v.Rows != 3 {
		t.Errorf("%d rows", v.Rows)
	}
}

// At the start, if the operator asks for it; a sink that is still broken does not
// keep the daemon from starting.
func TestReplayAtStart(t *testing.T) {
	t.Parallel()
	config := home(t, append(withSink("name = \"mock\"\nplugin = \"sink-mock\"\nconfig.rules = [{do = \"verdict\", ids = [\"bad\", \"worse\"], text = \"no\"}]"),
		"#replay_at_start = false", "replay_at_start = true")...)
	must(t, exitDeadLetters, refusal("bad")+refusal("worse"), "ingest", "-c", config, "-")
	edit(t, config, `ids = ["bad", "worse"]`, `ids = ["worse"]`)
	d := serve(t, config)
	for line := range d.lines {
		if strings.Contains(line, "replayed dead letters at the start") {
			if !strings.Contains(line, "selected=2 stored=1 skipped=0 refused=1 later=0") {
				t.Errorf("%s", line)
			}
			break
		}
	}
	if a := d.post(t, "ledger", refusal("e1")); a.Events[0].Status != event.StatusAppended {
		t.Errorf("%+v", a)
	}
	d.stop(t, 0)
	if l := listed(t, config); len(l) != 1 || l[0].ID != "worse" || l[0].Replays != 1 {
		t.Errorf("%+v", l)
	}
}
