package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// scaling are the curves: one measurement is one of them, its values are the
// points.
func scaling() []measurement {
	return []measurement{
		{name: "batch", about: "ingest against the size of a batch in events", run: points([]int{16, 64, 256, 1024, 4096, 16384},
			func(ctx context.Context, b *bench, dir string, n int) ([]value, error) {
				return ingest(minted, edit{batch: n})(ctx, b, dir)
			})},
		{name: "payload", about: "ingest against the size of an event in bytes", run: points([]int{200, 400, 1024, 4096, 16384, 65536},
			func(ctx context.Context, b *bench, dir string, n int) ([]value, error) {
				file := filepath.Join(dir, "events.jsonl")
				if err := corpus(file, max(5_000, b.events*400/max(n, 400)), n, false); err != nil {
					return nil, err
				}
				return ingest(func(*bench) string { return file }, edit{})(ctx, b, dir)
			})},
		{name: "sinks", about: "ingest against the number of ledgers", run: points([]int{1, 2, 3},
			func(ctx context.Context, b *bench, dir string, n int) ([]value, error) {
				return ingest(minted, edit{sinks: n - 1})(ctx, b, dir)
			})},
		{name: "clients", about: "requests of one event, durable, against the number of clients", run: points([]int{1, 4, 16, 64, 256},
			func(ctx context.Context, b *bench, dir string, n int) ([]value, error) {
				return served(edit{}, n, 1, "durable", 2*time.Second)(ctx, b, dir)
			})},
		{name: "latency", about: "each level at 10, 50 and 90 % of what 64 clients reach", run: latencies},
		{name: "rows", about: "ingest against the rows of the ledger, minted ids", run: growth(false)},
		{name: "rows_random", about: "the same with random ids", run: growth(true)},
	}
}

type pointer = func(ctx context.Context, b *bench, dir string, n int) ([]value, error)

// points measures at each of some values of n, each in a folder of its own.
func points(at []int, run pointer) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (list []value, err error) {
		for _, n := range at {
			sub := filepath.Join(dir, fmt.Sprint(n))
			if err := mkdir(sub); err != nil {
				return nil, err
			}
			values, err := run(ctx, b, sub, n)
			if err != nil {
				return nil, fmt.Errorf("at %d: %w", n, err)
			}
			for _, v := range values {
				v.name = fmt.Sprintf("_%d%s", n, v.name)
				list = append(list, v)
			}
		}
		return list, nil
	}
}

// growthSteps files of five times -events land in the ledger: 10 million rows are
// -curves -rounds 1 -only '^rows$' -events 200000, and 5 million with random ids
// -curves -rounds 1 -only rows_random -events 100000.
const growthSteps = 10

// growth ingests file after file into one ledger and verifies it at the end.
func growth(random bool) func(context.Context, *bench, string) ([]value, error) {
	return func(ctx context.Context, b *bench, dir string) (list []value, err error) {
		h, err := b.home(ctx, dir, edit{memory: true})
		if err != nil {
			return nil, err
		}
		file, growthRows := filepath.Join(dir, "events.jsonl"), 5*b.events
		var rates, cpu []float64
		for i := range growthSteps {
			if i == 0 || random {
				if err := corpus(file, growthRows, eventSize, random); err != nil {
					return nil, err
				}
			}
			values, err := b.ingest(ctx, h, file)
			if err != nil {
				return nil, err
			}
			rates, cpu = append(rates, values[0].v), append(cpu, values[1].v)
			for _, v := range values {
				v.name = fmt.Sprintf("_%.1fM%s", float64((i+1)*growthRows)/1e6, v.name)
				list = append(list, v)
			}
		}
		// What is left of the rate of the first file, by the clock and by the
		// processor.
		last := growthSteps - 1
		list = append(list, value{"_kept", 100 * rates[last] / rates[0], "%"}, value{"_kept.cpu", 100 * cpu[0] / cpu[last], "%"})
		values, err := b.verify(ctx, h)
		for _, v := range values {
			v.name = "_verify" + v.name
			list = append(list, v)
		}
		return list, err
	}
}

// latencies has 64 clients post events at a part of the rate that they reach,
// late ones counted from when they were due.
func latencies(ctx context.Context, b *bench, dir string) (list []value, err error) {
	const clients, last = 64, 3 * time.Second
	for _, ack := range []string{"accepted", "durable", "ledger"} {
		sub := filepath.Join(dir, ack)
		if err := mkdir(sub); err != nil {
			return nil, err
		}
		d, err := b.daemon(ctx, sub, edit{})
		if err != nil {
			return nil, err
		}
		rate := 0.0
		for _, part := range []int{100, 10, 50, 90} {
			var l loaded
			if l, err = d.load(ctx, clients, 1, ack, rate*float64(part)/100, last); err != nil {
				break
			}
			if rate == 0 {
				rate = float64(l.requests) / l.took.Seconds()
			}
			name := fmt.Sprintf("_%s_%d", ack, part)
			list = append(list, value{name, float64(l.requests) / l.took.Seconds(), "events/s"},
				value{name + ".p50", l.quantile(0.5), "us"}, value{name + ".p99", l.quantile(0.99), "us"}, value{name + ".p999", l.quantile(0.999), "us"})
		}
		if _, stopErr := d.stop(); err != nil || stopErr != nil {
			return nil, errors.Join(err, stopErr)
		}
	}
	return list, nil
}
