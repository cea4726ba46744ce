#!/usr/bin/env bash
# What ./nodeleak says and does about missing packages, with stand-ins for Debian's tools.
set -eu
source_root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tools=$work/tools root=$work/root
mkdir -p "$tools" "$root/build/release/bin"
cp -r "$source_root/nodeleak" "$source_root/cmake" "$root/"
mkdir "$root"/{recording,preload,tracer,symbolizer,report,cli}
touch "$root/CMakeLists.txt" "$root/CMakePresets.json"
for tool in bash readlink dirname find uname mkdir touch mv flock grep head tail env; do
  ln -s "$(command -v "$tool")" "$tools/$tool"
done
stub() { printf '#!/bin/bash\n%s\n' "$2" >"$tools/$1"; chmod +x "$tools/$1"; }
stub dpkg-query 'for last; do :; done; [[ " $INSTALLED " == *" $last "* ]] && printf installed'
stub apt-get 'echo "apt-get $*" >>"$APT_LOG"; exit "${APT_STATUS:-0}"'
stub cmake 'echo "one line of cmake"; exit "${CMAKE_STATUS:-0}"'
stub id 'echo "${USER_ID:-0}"'

everything="g++ cmake ninja-build pkg-config libunwind-dev libabsl-dev libcapstone-dev libdw-dev libelf-dev
            libbz2-dev liblzma-dev libzstd-dev zlib1g-dev nodejs"
everything=$(echo $everything)

# start <status> [NAME=VALUE...] -- ARGS...: runs the script; its output is in $said.
start() {
  local expected=$1 settings=() status=0
  shift
  while [[ $1 != -- ]]; do settings+=("$1"); shift; done
  shift
  : >"$work/apt.log"
  said=$(env -i PATH="$tools" APT_LOG="$work/apt.log" INSTALLED="$everything" "${settings[@]}" \
    "$root/nodeleak" "$@" 2>&1 </dev/null) || status=$?
  [[ $status == "$expected" ]] || { echo "status $status, not $expected: $said"; exit 1; }
}
says() { [[ $said == *"$1"* ]] || { echo "'$1' is not in: $said"; exit 1; }; }

start 2 USER_ID=1000 INSTALLED="${everything/libdw-dev /}" -- node app.js
says "these Debian packages are missing and only root can install them (there is no sudo here): libdw-dev. As root:"
[[ ! -s $work/apt.log ]]

start 2 APT_STATUS=100 TMPDIR=/nonexistent INSTALLED="${everything/libdw-dev /}" -- node app.js
says "installing the Debian packages libdw-dev"
says "cannot install these Debian packages: libdw-dev"
[[ $said != *"No such file"* ]]

# A build that fails in words of its own still shows them.
start 2 CMAKE_STATUS=1 -- node app.js
says "one line of cmake"
says "cannot build preset 'release'"

stub sudo 'echo "sudo: a password is required" >&2; exit 1'
start 2 USER_ID=1000 INSTALLED="${everything/libdw-dev /}" -- node app.js
says "(sudo -n apt-get install)"
says "sudo: a password is required"
says "cannot install these Debian packages: libdw-dev"

# Built already: nothing is asked for but the node that the command names.
printf '#!/bin/bash\necho "runs: $*"\n' >"$root/build/release/bin/nodeleak"
chmod +x "$root/build/release/bin/nodeleak"
touch "$root/build/release/.built"
for arguments in "node app.js" "run -q -o rec -- node app.js" "--top=3 node app.js"; do
  start 0 INSTALLED= -- $arguments
  says "installing the Debian packages nodejs"
  says "runs: $arguments"
done
for arguments in "report node" "-- sh -c node" "gc 12" "--help"; do
  start 0 INSTALLED= -- $arguments
  [[ $said == "runs: $arguments" ]] || { echo "more than the program was said: $said"; exit 1; }
done
stub node ''
start 0 INSTALLED= -- node app.js
[[ $said == "runs: node app.js" ]]
echo "all as expected"
