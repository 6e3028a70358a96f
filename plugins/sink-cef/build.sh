#!/bin/sh
# Makes sink-cef.wasm from sink.rs and the files beside it: sh build.sh
# RUSTC, WASM_LD and AUDIT_HOST name other programs, SDK another folder of the SDK.
set -eu
cd "$(dirname "$0")"
NAME=sink-cef
SDK=${SDK:-../../abi/sdk/rust}
RUSTC=${RUSTC:-rustc}
AUDIT_HOST=${AUDIT_HOST:-audit-host}
TARGET=wasm32-unknown-unknown

die() { echo "build.sh: $*" >&2; exit 1; }
test -e "$SDK/src/lib.rs" || die "no $SDK/src/lib.rs: SDK names the folder of the SDK for Rust"
command -v "$RUSTC" >/dev/null || die "no $RUSTC: install Rust 1.63 or later, or set RUSTC"
test -d "$("$RUSTC" --print sysroot)/lib/rustlib/$TARGET/lib" ||
    die "$RUSTC has no target $TARGET: rustup target add $TARGET, or on Debian apt-get install rustc libstd-rust-dev-wasm32 lld-14 and RUSTC=/usr/bin/rustc"
if test -z "${WASM_LD:-}"; then
    # Debian's Rust comes without a linker for WebAssembly, rustup's with one.
    for WASM_LD in wasm-ld wasm-ld-14 wasm-ld-15 wasm-ld-16 wasm-ld-17 wasm-ld-18 wasm-ld-19 ""; do
        test -z "$WASM_LD" || ! command -v "$WASM_LD" >/dev/null || break
    done
fi

rm -rf "$NAME.build"
mkdir "$NAME.build"
trap 'rm -rf "$NAME.build"' EXIT
rust() {
    "$RUSTC" --edition 2021 --target "$TARGET" -C opt-level=3 -C panic=abort -C target-feature=+bulk-memory --out-dir "$NAME.build" "$@"
}
# The names of folders do not get into the module.
rust --crate-name audit_host --crate-type rlib --remap-path-prefix "$SDK=audit-host-sdk" "$SDK/src/lib.rs"
rust --crate-name sink --crate-type cdylib --extern "audit_host=$NAME.build/libaudit_host.rlib" \
    -C lto -C strip=symbols -C link-arg=-zstack-size=65536 ${WASM_LD:+-C "linker=$WASM_LD"} ${RUSTFLAGS:-} sink.rs
"$AUDIT_HOST" plugin manifest manifest.json "$NAME.build/sink.wasm" || die "no manifest in the module: set AUDIT_HOST to the audit-host binary"
mv "$NAME.build/sink.wasm" "$NAME.wasm"
