package queue

import (
	"errors"
	"fmt"
	"time"
)

// Tuning is the part of [SinkOptions] that can change while the sink delivers.
// The zero values mean what they mean there.
type Tuning struct {
	Plugin                  string
	BatchEvents, BatchBytes int
	MaxRestarts             int
	RestartWindow           time.Duration
}

// checked fills in what is 0.
func (t Tuning) checked() (Tuning, error) {
	if t.BatchEvents < 0 || t.BatchBytes < 0 || t.MaxRestarts < 0 || t.RestartWindow < 0 {
		return t, errors.New("BatchEvents, BatchBytes, MaxRestarts and RestartWindow must not be negative")
	}
	t.BatchEvents, t.BatchBytes = nextLimits(t.BatchEvents, t.BatchBytes)
	if t.RestartWindow == 0 {
		t.RestartWindow = time.Minute
	}
	return t, nil
}

// Retune changes how the sink of that name is served, from its next delivery on:
// what is in hand and larger than the new bounds is delivered in parts. Incidents
// that were counted stay counted. A pause that the sink asked for ends. It neither
// waits for a delivery nor resumes a parked sink, and may be called from within the
// sink's Deliver.
func (r *Recorder) Retune(name string, t Tuning) error {
	for _, d := range r.drainers {
		if d.o.Name == name {
			if err := d.Retune(t); err != nil {
				return fmt.Errorf("retune sink %q: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("retune sink %q: %w", name, ErrNoSink)
}

// Retune is [Recorder.Retune] of one drainer.
func (d *Drainer) Retune(t Tuning) error {
	t, err := t.checked()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tuning = t
	d.tunes++
	d.changed.fire() // there may be room now
	return nil
}

// tuned returns what is in force.
func (d *Drainer) tuned() Tuning {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tuning
}

// spend takes an incident from the budget that is in force.
func (d *Drainer) spend() bool {
	t := d.tuned()
	d.budget.most, d.budget.window = t.MaxRestarts, t.RestartWindow
	return d.budget.spend(time.Now())
}

// tooLarge says whether a job is beyond the bounds that are in force. It can be
// only after they have changed: the queue was asked for no more.
func (d *Drainer) tooLarge(j *job) bool {
	t := d.tuned()
	if len(j.at) > t.BatchEvents {
		return true
	}
	bytes := 0
	for _, i := range j.at {
		e := &d.hand.events[i]
		bytes += len(e.ID) + len(e.Payload)
	}
	return bytes > t.BatchBytes
}
