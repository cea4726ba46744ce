#!/usr/bin/env bash
# The installed binary finds its installed shim, wherever the prefix is.
set -eu
build=$1
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null
find "$prefix" -type f
preloaded=$("$prefix/bin/nodeleak" --quiet --output="$prefix/%n.%p.rec" sh -c 'echo "$NODELEAK_PRELOAD"')
echo "preloaded: $preloaded"
test "$preloaded" = "$(readlink -f "$prefix/lib/nodeleak/libnodeleak-preload.so")"
