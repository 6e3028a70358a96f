#!/bin/sh
# Makes example.wasm from sink.ts: sh build.sh
# ASC and AUDIT_HOST name other programs, SDK another folder of the SDK.
set -eu
cd "$(dirname "$0")"
NAME=example
SDK=${SDK:-audit-host-sdk}
AUDIT_HOST=${AUDIT_HOST:-audit-host}

die() { echo "build.sh: $*" >&2; exit 1; }
test -e "$SDK/exports.ts" || die "no $SDK/exports.ts: SDK names the folder of the SDK for AssemblyScript"
if test -z "${ASC:-}"; then
    ASC=node_modules/.bin/asc
    test -e "$ASC" || ASC=asc
fi
command -v "$ASC" >/dev/null || die "no asc: npm install --save-dev assemblyscript, or set ASC"
ASC=$(command -v "$ASC")
case $ASC in /*) ;; *) ASC=$PWD/$ASC ;; esac

# The compiler finds the SDK beside the source, as the source says.
trap 'rm -rf "$NAME.build"' EXIT
rm -rf "$NAME.build"
mkdir "$NAME.build"
cp -- *.ts "$NAME.build"
ln -s "$(cd "$SDK" && pwd)" "$NAME.build/audit-host-sdk"
(
    cd "$NAME.build"
    "$ASC" sink.ts -o sink.wasm --runtime minimal -O3 --noAssert --exportStart _initialize --use abort=audit-host-sdk/abort/abort ${ASCFLAGS:-}
)
"$AUDIT_HOST" plugin manifest manifest.json "$NAME.build/sink.wasm" || die "no manifest in the module: set AUDIT_HOST to the audit-host binary"
mv "$NAME.build/sink.wasm" "$NAME.wasm"
