#!/bin/sh
# Makes example.wasm from sink.c: sh build.sh
# CLANG, WASM_LD and AUDIT_HOST name other programs, SDK another folder of the SDK.
set -eu
cd "$(dirname "$0")"
NAME=example
SDK=${SDK:-audit-host-sdk}
CLANG=${CLANG:-clang}
AUDIT_HOST=${AUDIT_HOST:-audit-host}

die() { echo "build.sh: $*" >&2; exit 1; }
test -e "$SDK/audit_host.h" || die "no $SDK/audit_host.h: SDK names the folder of the SDK for C"
command -v "$CLANG" >/dev/null || die "no $CLANG: install clang and lld (Debian: apt-get install clang lld), or set CLANG"
if test -z "${WASM_LD:-}"; then
    # The linker of the same LLVM comes under several names.
    for WASM_LD in wasm-ld "wasm-ld-$("$CLANG" -dumpversion | cut -d. -f1)" none; do
        command -v "$WASM_LD" >/dev/null && break
    done
fi
command -v "$WASM_LD" >/dev/null || die "no wasm-ld: install lld (Debian: apt-get install lld), or set WASM_LD"

# In two steps: where binaryen is installed, clang as the linker's driver runs
# its wasm-opt, which can fail on bulk memory.
trap 'rm -f "$NAME.o" "$NAME.part"' EXIT
"$CLANG" --target=wasm32 -ffreestanding -nostdlib -std=c11 -O2 -mbulk-memory -Wall -Wextra -I "$SDK" ${CFLAGS:-} -c sink.c -o "$NAME.o"
"$WASM_LD" --no-entry --gc-sections --strip-all --stack-first -z stack-size=65536 ${LDFLAGS:-} "$NAME.o" -o "$NAME.part"
"$AUDIT_HOST" plugin manifest manifest.json "$NAME.part" || die "no manifest in the module: set AUDIT_HOST to the audit-host binary"
mv "$NAME.part" "$NAME.wasm"
