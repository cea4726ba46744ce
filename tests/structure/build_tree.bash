#!/usr/bin/env bash
# A plain build leaves the binary and its shim side by side, and the binary runs.
set -eu
build=$1
test -x "$build/bin/nodeleak"
test -f "$build/bin/libnodeleak-preload.so"
"$build/bin/nodeleak" --version | grep -E '^nodeleak [0-9]+\.[0-9]+\.[0-9]+'
"$build/bin/nodeleak" --help | grep -q 'nodeleak node server.js'
