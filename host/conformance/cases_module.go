package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/host"
)

// probes lists all cases in the order in which they run.
func probes() []probe {
	return []probe{
		{"module", "R1", "the module exports what the ABI wants, and nothing starts by itself", "", module},
		{"manifest", "R3", "the manifest says what the plugin is", "module", readManifest},
		{"imports", "R4", "each import is known, and its capability asked for", "manifest", imports},
		{"config", "R19", "audit_open takes a configuration that the schema allows", "imports", opens},
		{"bad-config", "R19", "audit_open refuses a bad configuration and never traps", "config", refuses},
		{"empty", "R5", "an empty batch is OK(0)", "config", empty},
		{"one", "R5", "one event is stored when the answer is OK", "config", one},
		{"kept", "R20", "what was OK outlives the instance, without audit_flush", "one", kept},
		{"order", "R21", "events are written in the order of the batch", "kept", order},
		{"large", "R5", "1,024 events, an event of 1 MiB, a frame of 24 MiB", "kept", large},
		{"texts", "R25", "ids, names and payloads of all that an event may hold, unsigned events too", "kept", texts},
		{"unsigned", "R18", "numbers beyond 2^31 are no negative ones", "kept", wideNumbers},
		{"sizes", "R26", "a frame with a larger header and larger entries", "kept", otherSizes},
		{"high", "R18", "a frame that lies across 2^31", "kept", highMemory},
		{"twice", "R8", "an event that is in one batch twice", "kept", twice},
		{"duplicates", "R8", "an event that comes again in a later batch", "kept", later},
		{"lost-answer", "R8", "a batch whose answer was lost", "kept", lostAnswer},
		{"killed", "R8", "an instance that ends before and behind each call of a capability", "kept", killed},
		{"stopped", "R8", "an instance that is stopped at points of its computation", "kept", stopped},
		{"errors", "R22", "each call of a capability fails, with each status", "kept", hostErrors},
		{"server", "R22", "a server that answers 500, 503, 429, 400 or nothing", "kept", serverErrors},
		{"memory", "R9", "memory.grow is refused from the k-th page on", "kept", refusedMemory},
		{"fuel", "R23", "the work of a batch grows with its size and not faster", "large", fuel},
		{"endurance", "R23", "memory does not grow with the number of batches", "kept", endurance},
		{"replay", "R24", "the same frames lead to the same calls and outcomes", "kept", replay},
		{"close", "R20", "audit_flush and audit_close end well, and all is there afterwards", "kept", closing},
	}
}

// module compiles the module and compares it with the ABI.
func module(ctx context.Context, k *kit) (string, error) {
	in, err := host.Inspect(ctx, k.wasm, host.InspectOptions{Cache: k.o.Cache})
	if err != nil {
		return "", err
	}
	k.rep.Digest, k.imported = in.Digest, in.Capabilities
	k.rep.Capabilities = []string{}
	if in.Manifest != nil {
		k.manifest = *in.Manifest
		k.rep.Plugin, k.rep.Version, k.rep.Idempotent = in.Manifest.Name, in.Manifest.Version, in.Manifest.Idempotent
		k.rep.Capabilities = append(k.rep.Capabilities, in.Manifest.Capabilities...)
	}
	k.problems = map[string][]string{}
	for l := range strings.Lines(in.Problem) {
		l = strings.TrimSpace(l)
		switch {
		case l == "" || strings.HasPrefix(l, "not a plugin of ABI"):
		case strings.Contains(l, "manifest") && !strings.HasPrefix(l, "import ") && !strings.HasPrefix(l, "capability "):
			k.problems["manifest"] = append(k.problems["manifest"], l)
		case strings.HasPrefix(l, "import "), strings.HasPrefix(l, "capability "):
			k.problems["imports"] = append(k.problems["imports"], l)
		default:
			k.problems["module"] = append(k.problems["module"], l)
		}
	}
	list := k.problems["module"]
	if list == nil {
		return fmt.Sprintf("%d bytes, compiled in %d ms", in.Size, in.Compile.Milliseconds()), nil
	}
	b := &Breach{Sent: "the module, which nobody has run yet", Got: strings.Join(list, "; "), Wanted: "the exports of the table in abi/README.md, a memory that is exported, no start section", Change: "the exports that are named; an SDK has them all"}
	switch {
	case strings.Contains(b.Got, "version marker"):
		b.Rule = "R2"
	case strings.Contains(b.Got, "not a WebAssembly"):
		b.Wanted, b.Change = "a WebAssembly module", "the name of the file, or the build that made it"
	}
	return "", b
}

func readManifest(_ context.Context, k *kit) (string, error) {
	sent := "the custom section audit.manifest"
	if list := k.problems["manifest"]; list != nil {
		return "", &Breach{Sent: sent, Got: strings.Join(list, "; "), Wanted: "one JSON object with name, version, capabilities, idempotent and config_schema",
			Change: "the manifest, and that it was added to this file after the last build"}
	}
	s, err := readSchema(k.manifest.ConfigSchema)
	if err == nil {
		for name, p := range s.Properties {
			if _, e := readSchema(p); e != nil {
				err = fmt.Errorf("property %s: %w", name, e)
			}
		}
	}
	if err != nil {
		return "", &Breach{Sent: sent, Got: err.Error(), Wanted: "a config_schema that is a JSON Schema", Change: "config_schema in the manifest"}
	}
	k.schema = s
	m := k.manifest
	note := m.Name + " " + m.Version + ", not idempotent"
	if m.Idempotent {
		note = m.Name + " " + m.Version + ", idempotent"
	}
	if k.manifest.ConfigSchema == nil {
		note += "; without config_schema only what is no JSON is tried as a bad configuration"
	}
	return note, nil
}

func imports(_ context.Context, k *kit) (string, error) {
	if list := k.problems["imports"]; list != nil {
		return "", &Breach{Sent: "the module, which nobody has run yet", Got: strings.Join(list, "; "),
			Wanted: "imports of the modules audit and wasi_snapshot_preview1 that the ABI knows, and each capability that they need in the manifest",
			Change: "capabilities in the manifest, or the code that needs the import"}
	}
	var unused []string
	for _, name := range k.manifest.Capabilities {
		if !slices.Contains(k.imported, name) && name != abi.CapabilityNow && name != abi.CapabilityRandom {
			unused = append(unused, name)
		}
	}
	if unused != nil {
		return "it asks for " + strings.Join(unused, ", ") + " and imports nothing of it: an operator would grant it for nothing", nil
	}
	if len(k.manifest.Capabilities) == 0 {
		return "no capability", nil
	}
	return strings.Join(k.manifest.Capabilities, ", "), nil
}

// opens makes or takes a configuration and hands it over.
func opens(ctx context.Context, k *kit) (string, error) {
	note := "the given one"
	var err error
	if k.o.Config == nil {
		k.config, k.made = k.schema.example("", k.server.origin()), true
		note = "made from the schema: " + string(k.config)
	} else if k.config, err = onLoopback(k.o.Config, k.server.origin()); err != nil {
		return "", unchecked("the configuration that was given is no JSON: " + err.Error())
	}
	if why := k.schema.problem(k.config); why != "" && !k.made {
		return "", unchecked("the configuration that was given does not fit the schema: " + why)
	}
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	r, err := w.bench.Reopen(ctx, k.config)
	if err != nil {
		return "", err
	}
	switch r.Outcome {
	case abi.OK, abi.Retry, abi.Busy:
		return note, nil
	case abi.BadConfig:
		return "", refusedConfig(k, r.Detail)
	}
	return "", brokenOpen(r, "the configuration "+string(k.config))
}

// refusedConfig is a configuration that was refused. That is no breach: a schema
// need not say all that is wanted.
func refusedConfig(k *kit, detail string) error {
	if k.made {
		return unchecked("the plugin refuses " + string(k.config) + ", made from its schema (" + detail + "): give one with --config")
	}
	return unchecked("the plugin refuses the configuration that was given: " + detail)
}

// brokenOpen is an audit_open that ended as it must not.
func brokenOpen(r abi.Result, sent string) *Breach {
	return &Breach{Rule: "R19", Sent: "audit_open with " + sent, Got: answered(r), Wanted: "OK, RETRY, BUSY or BAD_CONFIG", Change: "audit_open"}
}

func refuses(ctx context.Context, k *kit) (string, error) {
	w, err := k.usualWorld(ctx)
	if err != nil {
		return "", err
	}
	defer w.close(ctx)
	list := k.schema.badConfigs(k.config)
	for _, b := range list {
		r, err := w.bench.Reopen(ctx, []byte(b.config))
		if err != nil {
			return "", err
		}
		sent := fmt.Sprintf("%s (%s)", b.config, b.why)
		if !json.Valid([]byte(b.config)) {
			sent = fmt.Sprintf("%q (%s)", b.config, b.why)
		}
		switch {
		case r.Outcome == abi.BadConfig:
		case r.Outcome.HostMade():
			return "", &Breach{Sent: "audit_open with " + sent, Got: answered(r), Wanted: "BAD_CONFIG, with a message that names the mend",
				Change: "how audit_open reads its configuration: look at each value's type before it is used"}
		case r.Outcome != abi.OK || k.manifest.ConfigSchema != nil || !json.Valid([]byte(b.config)):
			return "", &Breach{Sent: "audit_open with " + sent, Got: answered(r), Wanted: "BAD_CONFIG, or a schema that allows it",
				Change: "audit_open: what it does not understand it refuses, else a slip of the pen in audit.toml goes unnoticed"}
		}
	}
	// The world is that of other cases too.
	if _, err := w.bench.Reopen(ctx, k.config); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d configurations", len(list)), nil
}
