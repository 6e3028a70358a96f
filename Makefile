GO ?= go
export CGO_ENABLED ?= 0

.PHONY: build test check
build:
	$(GO) build ./...

test:
	$(GO) test ./...

# The guest side has to vet as WebAssembly too; the race detector needs cgo.
check:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	GOOS=wasip1 GOARCH=wasm $(GO) vet ./abi/... ./ledger
	for t in linux/arm64 darwin/arm64 windows/amd64; do GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build ./... || exit 1; done
	CGO_ENABLED=1 $(GO) test -race ./...
	$(GO) test -run '^$$' -fuzz '^FuzzParseFrame$$' -fuzztime 10s ./abi
	$(GO) test -run '^$$' -fuzz '^FuzzCanonical$$' -fuzztime 10s -fuzzminimizetime 1x ./event
	$(GO) test -run '^$$' -fuzz '^FuzzAgree$$' -fuzztime 10s -fuzzminimizetime 1x ./host/meter
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime 10s ./cmd/audit-host/internal/config
