package meter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/audit-host/audit-host/host/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// compiling makes the test binary a process that compiles what it reads.
const compiling = "METER_TEST_COMPILES"

func TestMain(m *testing.M) {
	if os.Getenv(compiling) != "" {
		wasm, err := io.ReadAll(os.Stdin)
		if err != nil {
			panic(err)
		}
		r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
		var c compiled
		if _, err := r.CompileModule(context.Background(), wasm); err != nil {
			c.Err = err.Error()[:min(200, len(err.Error()))]
		}
		c.Memory = most()
		json.NewEncoder(os.Stdout).Encode(c)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// compiled is what a compilation took.
type compiled struct {
	CPU    time.Duration
	Memory int64 // the most that the process had, in bytes
	Err    string
}

// most is the most memory that this process had.
func most() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); err == nil {
			return kib << 10
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

// compile compiles a module in a process of its own and tells what that took.
func compile(t testing.TB, wasm []byte, limit time.Duration) compiled {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), compiling+"=1")
	cmd.Stdin = bytes.NewReader(wasm)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("compiling %d bytes: %v, after %v of processor time", len(wasm), err, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	var c compiled
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	c.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c
}

// share is the part of the limits that is tried. In full each module takes
// seconds, which a fuzz test does not have: make fuzz tries the seeds in full.
func share() int64 {
	if os.Getenv("METER_TEST_FULL") != "" {
		return 1
	}
	return 16
}

// partsOf reads what a module is made of: five bytes for each of up to three
// parts.
func partsOf(how []byte) (parts []part) {
	for len(how) >= 4 && len(parts) < 3 {
		s := shapes[int(how[0])%len(shapes)]
		a := int(how[1]) | int(how[2])<<8
		parts = append(parts, part{s, a % 1001, 1 + int(how[3]), 1})
		how = how[4:]
	}
	return parts
}

// largest makes the largest module in the proportions of the parts that is
// accepted: first each function grows, then their number.
func largest(parts []part, o meter.Options) (out []byte, info meter.Info) {
	try := func(p []part) bool {
		wasm := moduleOf(p...)
		if len(wasm) > 8<<20 {
			return false
		}
		got, i, err := meter.Rewrite(wasm, o)
		if err == nil {
			out, info = got, i
		}
		return err == nil
	}
	grow := func(set func(p *part, by int)) {
		next := func(by int) []part {
			list := slices.Clone(parts)
			for i := range list {
				set(&list[i], by)
			}
			return list
		}
		good, bad := 0, 0
		for by := 1; bad == 0; by *= 4 {
			if try(next(by)) {
				good = by
			} else {
				bad = by
			}
			if by > 1<<20 {
				break
			}
		}
		for range 5 {
			if mid := (good + bad) / 2; bad-good <= 1 {
				break
			} else if try(next(mid)) {
				good = mid
			} else {
				bad = mid
			}
		}
		parts = next(max(good, 1))
	}
	grow(func(p *part, by int) { p.b *= by })
	grow(func(p *part, by int) { p.n *= by })
	return out, info
}

// FuzzCompileCost: whatever is accepted compiles within the bounds that the
// options promise. The seeds are the worst of each shape.
func FuzzCompileCost(f *testing.F) {
	for i, s := range shapes {
		if s.name == "one kind of instruction" {
			for k := range straight {
				if share() > 1 || slices.Contains(dear, k) {
					f.Add([]byte{byte(i), byte(k), 0, 0})
				}
			}
			continue
		}
		f.Add([]byte{byte(i), byte(s.a), byte(s.a >> 8), 0})
	}
	f.Add([]byte{4, 0xe8, 3, 0}) // found by fuzzing
	f.Add([]byte{0, 100, 0, 10, 9, 100, 0, 10, 25, 5, 0, 100})
	scale := share()
	o := meter.Options{MaxCompileCost: meter.DefaultCompileCost / scale, MaxCompileMemory: meter.DefaultCompileMemory / scale}
	// Idle it is five seconds; the machine may be busy, and a processor that is
	// shared is slower.
	cpu := 5 * time.Second / time.Duration(scale) * 5 / 2 * instrumented()
	memory := 500<<20/scale + 20<<20
	f.Fuzz(func(t *testing.T, how []byte) {
		parts := partsOf(how)
		if len(parts) == 0 {
			return
		}
		wasm, info := largest(parts, o)
		if wasm == nil {
			return
		}
		var c compiled
		for try := 1; ; try++ { // the machine may be busy
			c = compile(t, wasm, time.Minute)
			t.Logf("%s %d: %d bytes, %v expected, took %v; %d MiB expected, %d MiB used %s", parts[0].shape.name, parts[0].a, len(wasm),
				time.Duration(info.CompileCost), c.CPU, info.CompileMemory>>20, c.Memory>>20, c.Err)
			if c.CPU < min(cpu, slack(info)) || try == 3 {
				break
			}
		}
		if c.Err != "" {
			t.Errorf("not compiled, so nothing is known of it: %s", c.Err)
		}
		if c.CPU > cpu || c.Memory > memory {
			t.Errorf("%s: took %v and %d MiB, at most %v and %d MiB were promised", parts[0].shape.name, c.CPU, c.Memory>>20, cpu, memory>>20)
		}
		// Each shape is dear in a way of its own, for which the estimate has a term.
		if c.CPU > slack(info) || c.Memory > info.CompileMemory*13/10+24<<20 {
			t.Errorf("%s: took %v and %d MiB, much more than was expected: %v, %d MiB", parts[0].shape.name, c.CPU, c.Memory>>20,
				time.Duration(info.CompileCost), info.CompileMemory>>20)
		}
	})
}

// slack is the most that a module may take that is expected to take so long: the
// estimate is no closer than that, and a processor that is shared is slower.
func slack(info meter.Info) time.Duration {
	return (time.Duration(info.CompileCost)*2 + 30*time.Millisecond) * instrumented()
}

// instrumented is how much slower this binary is for a fuzz test: it counts its
// coverage, the compiler's too.
func instrumented() time.Duration {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return 3
		}
	}
	return 1
}
