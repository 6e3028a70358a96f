GO ?= go
export CGO_ENABLED ?= 0

# What every plugin is built from; its own folder comes on top.
plugins := $(patsubst %,plugins/bundled/%.wasm,sink-file sink-http sink-mock sink-sqlite)
sources-in = $(filter-out %_test.go,$(wildcard $(addsuffix /*.go,$(1))))
plugin-sources := $(call sources-in,abi abi/guest abi/manifest abi/cmd/add-manifest ledger/chain) go.mod Makefile
guest := CGO_ENABLED=0 GOFLAGS= GOWASM= GOOS=wasip1 GOARCH=wasm $(GO)
guest-flags := -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w"

.PHONY: build plugins run test check full fuzz fuzz-short bench benchmarks interop sdk torture backlog reproducible
build: plugins
	$(GO) build ./...
	$(GO) build -o bin/ ./cmd/audit-host

# Serves on the sample configuration, with keys and a ledger of its own in demo/.
run: build
	test -e demo/audit.toml || bin/audit-host init demo
	exec bin/audit-host run -c demo/audit.toml

plugins: $(plugins)

# What two of them are built from beside that.
plugins/bundled/sink-file.wasm plugins/bundled/sink-http.wasm: $(call sources-in,plugins/shape)

# The module appears under its name only when it is whole.
.SECONDEXPANSION:
plugins/bundled/%.wasm: $(plugin-sources) $$(call sources-in,plugins/$$*) plugins/%/manifest.json
	$(guest) build $(guest-flags) -o $(basename $@).part ./plugins/$*
	$(GO) run ./abi/cmd/add-manifest plugins/$*/manifest.json $(basename $@).part
	mv $(basename $@).part $@

# The plugins, built again in another folder, are the same byte for byte.
reproducible: plugins
	$(GO) test -count=1 -run '^TestReproducible$$' ./plugins/bundled

# What a change needs to hear of within three minutes. make check runs the rest.
test: plugins
	$(GO) test -timeout 20m -skip '^($(slow)|$(slow-raced))$$' ./...

# Tests that take long: kills and starts in a row, guests built by compilers, all
# hostile modules. Of these the race detector sees nothing: their work is done in
# guests, in processes that are the program as it is shipped, or on one goroutine.
slow := TestTorture|TestBacklog.*|TestReplayCommandKilled|TestReplayDaemonEnds|TestReplayCrashes|TestTwentySwaps|TestKilled
slow := $(slow)|TestFlippedBitInEachCacheEntry|TestPluginNewInGo|TestLedgerWithoutPermission|TestStopBeforeTheLedgerTakesAnything
slow := $(slow)|TestBundleOfTheGoGuest|TestWhatACallMakesTheHostHold|TestKilledWithGrants|TestSpecification|FuzzCompileCost
slow := $(slow)|TestBrokenInOneWay|TestScrambled|TestParkedSinkIsResumed
# Of these it may.
slow-raced := TestZoo|TestLockedForTenSeconds|TestLedgerIsBackWhileNothingComes|TestLedgerWentBackWhileStopped
slow-raced := $(slow-raced)|TestLedgerLosesItsLogBeforeItsHead|TestStopDoesNotWaitForTheCompiler|TestQueueFolderMissing|TestAcknowledgedUnderAKey
# And these are quick, and of no use to it.
unraced := TestScripts|TestHangup|TestRenewedLock|TestEndedWhileReloading|TestSignalsDrain|TestSecondSignal|TestTwoSignalsAtOnce
unraced := $(unraced)|TestVerifyAfterKill|TestGapOutlivesAKill|TestReadersTellWhatMayNotBeOnDisk|TestInspectGoGuest
unraced := $(unraced)|TestGoGuestComputesTheSame|TestLargeEncodings|TestRandomModulesAgree

STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The guest side has to vet as WebAssembly too.
check: plugins
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(guest) vet ./abi/... ./ledger/chain ./plugins/sink-...
	$(GO) run $(STATICCHECK) ./...
	for t in linux/arm64 darwin/arm64 windows/amd64; do GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build ./... || exit 1; done
	for t in $(subst |, ,$(slow)|$(slow-raced)|$(unraced)); do grep -rqE --include=*_test.go "^func $$t\(" . || { echo "no test is named $$t"; exit 1; }; done
	$(GO) test -timeout 20m -run '^($(slow))$$' ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 20m -skip '^($(slow)|$(unraced))$$' $$($(GO) list ./... | grep -v /plugins/sink-)
	$(MAKE) fuzz-short benchmarks

# Every fuzz test for a while. A selector that selects nothing is a failure.
FUZZTIME ?= 3s
fuzz-short:
	list=$$(grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' abi cmd deadletter event host internal ledger plugins queue sign | sed 's/:[0-9]*:func /:/'); \
	test -n "$$list" || { echo "no fuzz test found"; exit 1; }; \
	for f in $$list; do \
		echo "$$f"; \
		$(GO) test -run '^$$' -fuzz "^$${f#*:}\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./$$(dirname $${f%:*}) || exit 1; \
	done

# And the modules that are dearest to compile, as large as they may be: two minutes
# in which nothing else should run.
fuzz: fuzz-short
	METER_TEST_FULL=1 $(GO) test -count=1 -run '^FuzzCompileCost$$' ./host/meter

# Every benchmark once, so that none rots; the tool for make bench is checked too.
benchmarks: plugins
	$(GO) test -run '^$$' -bench . -benchtime 1x ./...
	cd interop/bench && CGO_ENABLED=1 $(GO) vet ./... && CGO_ENABLED=1 $(GO) test ./...

# Ours beside its peers, in one run: some minutes, a C compiler needed. The
# numbers mean something only while nothing else runs. BENCH=-list shows more.
BENCH ?= -rounds 3
bench: plugins
	cd interop/bench && CGO_ENABLED=1 $(GO) run . $(BENCH)

# A million events pile up before a ledger that takes nothing, and land: memory,
# disk and time as figures. The tests do the same with fewer.
BACKLOG ?= 1000000
backlog: plugins
	BACKLOG=$(BACKLOG) $(GO) test -count=1 -v -run '^TestBacklog' -timeout 30m ./cmd/audit-host

# Kills the daemon under load and compares sets of ids; `make torture ROUNDS=200`.
ROUNDS ?= 20
torture: plugins
	ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 2h -run '^TestTorture$$' -v ./cmd/audit-host

# A real OPA against a real audit-host; builds OPA, which takes minutes.
interop: plugins
	cd interop && $(GO) test -count=1 -v ./...

# The examples of all SDKs, and sink-cef, built by their compilers and run in the
# real host. RUSTC, ASC and ZIG name compilers that are not in PATH.
sdk: plugins
	cd interop/sdk && $(GO) vet ./... && $(GO) test -count=1 -timeout 20m ./...

# What takes too long for every change: once before a release. .ci/full installs
# the compilers that it needs.
full: sdk interop fuzz
	$(MAKE) torture ROUNDS=50
