package pipeline

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/event"
	"github.com/audit-host/audit-host/queue"
)

// Bounds of the chronicle. A sink that crashes on everything must not fill the
// ledger with the story of it.
const (
	chronicleBurst = 10          // events of a type and sink at once
	chronicleEvery = time.Minute // how often as many more are made
	chronicleLook  = time.Second // how often it looks for parked sinks
	chronicleRoom  = 64          // notes that wait
)

// chronicle records what becomes of the plugins as events in the same queue:
// audit.plugin.loaded, trapped, parked, resumed, rolled_back and dead_letter.
//
// It never tells of itself: a crash on a batch of nothing but such events, and
// the dead letter of one, make none. Together with the bound on each type and
// sink, and since a sink that goes on crashing is parked, there is no stream
// without an end. What was left out is counted in the next event.
//
// It never holds up a sink: notes that find no room are left out too.
//
// Not guaranteed: an event for a sink that was parked and resumed within a
// second, and for what happens while the recorder closes; the log has both.
type chronicle struct {
	submit  func(context.Context, abi.Event) error
	metrics func() queue.Metrics
	log     *slog.Logger
	seats   []*seat

	notes  chan event.Plugin
	end    chan struct{}
	done   chan struct{}
	cancel context.CancelFunc // ends what run waits for

	mu   sync.Mutex
	lost map[[2]string]int // what and sink, of notes without room

	// Owned by run.
	budget map[[2]string]*allowance
	parked map[string]bool
}

// allowance is what may be made of a type and sink.
type allowance struct {
	left, suppressed int
	until            time.Time // then it is whole again
}

// newChronicle makes a chronicle of these sinks. Nothing is recorded before run.
func newChronicle(seats []*seat, log *slog.Logger) *chronicle {
	return &chronicle{
		log: log, seats: seats, notes: make(chan event.Plugin, chronicleRoom), end: make(chan struct{}), done: make(chan struct{}),
		lost: map[[2]string]int{}, budget: map[[2]string]*allowance{}, parked: map[string]bool{},
	}
}

// plugin is that of a sink, as it is now.
func (c *chronicle) plugin(sink string) (p event.Plugin, known bool) {
	for _, s := range c.seats {
		if s.name == sink {
			return s.plugin(), true
		}
	}
	return p, false
}

// start begins to record, with a load of each plugin.
func (c *chronicle) start(r *queue.Recorder) {
	c.submit = func(ctx context.Context, e abi.Event) error {
		_, err := r.Submit(ctx, e)
		return err
	}
	c.metrics = r.Metrics
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.run(ctx)
}

// halt records what waits and ends. It must be called before the recorder is
// closed, and does nothing on a nil chronicle or one that was never started.
func (c *chronicle) halt(ctx context.Context) {
	if c == nil || c.submit == nil {
		return
	}
	close(c.end)
	stop := context.AfterFunc(ctx, c.cancel) // a full queue, say, that nobody empties
	<-c.done
	stop()
	c.cancel()
}

func (c *chronicle) run(ctx context.Context) {
	defer close(c.done)
	for _, s := range c.seats {
		p := s.plugin()
		p.What = event.PluginLoaded
		c.record(ctx, p)
	}
	look := time.NewTicker(chronicleLook)
	defer look.Stop()
	for {
		select {
		case p := <-c.notes:
			c.record(ctx, p)
		case <-look.C:
			c.look(ctx)
		case <-c.end:
			// What still comes is the story of the closing.
			for range len(c.notes) {
				c.record(ctx, <-c.notes)
			}
			c.look(ctx)
			return
		}
	}
}

// look records which sinks were parked or resumed since the last time.
func (c *chronicle) look(ctx context.Context) {
	for _, m := range c.metrics().Sinks {
		p, known := c.plugin(m.Name)
		if is := m.Parked != ""; known && is != c.parked[m.Name] {
			c.parked[m.Name] = is
			p.What, p.Detail = event.PluginResumed, ""
			if is {
				p.What, p.Detail = event.PluginParked, m.Parked
			}
			c.record(ctx, p)
		}
	}
}

// record submits an event, unless there were too many like it.
func (c *chronicle) record(ctx context.Context, p event.Plugin) {
	key, now := [2]string{p.What, p.Sink}, time.Now()
	a := c.budget[key]
	if a == nil {
		a = &allowance{}
		c.budget[key] = a
	}
	if !now.Before(a.until) {
		a.left, a.until = chronicleBurst, now.Add(chronicleEvery)
	}
	if a.left == 0 {
		a.suppressed++
		return
	}
	a.left--
	c.mu.Lock()
	p.Suppressed = a.suppressed + c.lost[key]
	delete(c.lost, key)
	c.mu.Unlock()
	a.suppressed = 0
	e, err := p.Event(event.Options{})
	if err == nil {
		err = c.submit(ctx, e)
	}
	if err != nil {
		a.suppressed = p.Suppressed + 1
		c.log.Warn("what became of a plugin could not be recorded", slog.String("sink", p.Sink), slog.String("what", p.What), slog.String("error", err.Error()))
	}
}

// note asks for an event. It never waits.
func (c *chronicle) note(p event.Plugin) {
	select {
	case c.notes <- p:
	default:
		c.mu.Lock()
		c.lost[[2]string{p.What, p.Sink}]++
		c.mu.Unlock()
	}
}

// watch notes the crashes of a sink.
func (c *chronicle) watch(name string, s queue.Sink) queue.Sink { return &watched{s, c, name} }

type watched struct {
	queue.Sink
	c    *chronicle
	name string
}

// Deliver notes a host-made outcome, unless it only means that the host ends.
func (w *watched) Deliver(ctx context.Context, b *abi.Batch) abi.Result {
	r := w.Sink.Deliver(ctx, b)
	if r.Outcome.HostMade() && ctx.Err() == nil {
		others := 0
		for i := range b.Events {
			if !event.IsPlugin(&b.Events[i]) {
				others++
			}
		}
		if p, _ := w.c.plugin(w.name); others > 0 {
			p.What, p.Outcome, p.Events = event.PluginTrapped, r.Outcome.String(), len(b.Events)
			p.Detail, _, _ = strings.Cut(r.Detail, "\n")
			w.c.note(p)
		}
	}
	return r
}

// letters notes the dead letters of each sink.
func (c *chronicle) letters(d queue.DeadLetters) queue.DeadLetters { return &watchedLetters{d, c} }

type watchedLetters struct {
	queue.DeadLetters
	c *chronicle
}

// Put notes what was stored.
func (w *watchedLetters) Put(ctx context.Context, letters []abi.DeadLetter) error {
	if err := w.DeadLetters.Put(ctx, letters); err != nil {
		return err
	}
	bySink := map[string]*event.Plugin{}
	for i := range letters {
		l := &letters[i]
		p, known := w.c.plugin(l.Sink)
		if !known || event.IsPlugin(&l.Event) {
			continue
		}
		if bySink[l.Sink] == nil {
			p.What, p.Outcome = event.PluginDeadLetter, l.Outcome.String()
			p.Detail = "first " + l.Event.ID
			bySink[l.Sink] = &p
		}
		bySink[l.Sink].Events++
	}
	for _, p := range bySink {
		w.c.note(*p)
	}
	return nil
}
