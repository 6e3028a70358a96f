#!/bin/sh
# Makes example.wasm: sh build.sh
# GO and AUDIT_HOST name other programs.
set -eu
cd "$(dirname "$0")"
NAME=example
GO=${GO:-go}
AUDIT_HOST=${AUDIT_HOST:-audit-host}

die() { echo "build.sh: $*" >&2; exit 1; }
command -v "$GO" >/dev/null || die "no $GO: install Go (https://go.dev/dl), or set GO"
command -v "$AUDIT_HOST" >/dev/null || die "no $AUDIT_HOST: put the audit-host binary into a folder of PATH, or set AUDIT_HOST"

# The module appears under its name only when it is whole. A workspace of a
# folder above is none of this module's business.
trap 'rm -f "$NAME.part"' EXIT
GOWORK=off GOFLAGS= GOWASM= CGO_ENABLED=0 GOOS=wasip1 GOARCH=wasm "$GO" build \
    -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w" -o "$NAME.part" .
"$AUDIT_HOST" plugin manifest manifest.json "$NAME.part"
mv "$NAME.part" "$NAME.wasm"
