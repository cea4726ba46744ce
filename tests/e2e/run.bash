#!/usr/bin/env bash
# run.bash MAJOR DRIVER [ARG...]: runs a driver with the node of that major out of NODELEAK_TEST_NODES ("18=/path ...").
# The driver's node is not watched; it finds itself as process.execPath and runs itself under nodeleak.
set -u
major=$1
shift
for pair in ${NODELEAK_TEST_NODES:-}; do
  [[ ${pair%%=*} == "$major" ]] && exec env -u LD_PRELOAD -u NODELEAK_PRELOAD "${pair#*=}" "$@"
done
echo "skipped: NODELEAK_TEST_NODES names no node $major"
exit 77
