#!/usr/bin/env bash
# run.bash NODE DRIVER [ARG...]: runs a driver with the node that is to be tested, which is one of
#   18 20 22 24 26   out of NODELEAK_TEST_NODES ("18=/path 20=/path ...")
#   stripped         NODELEAK_TEST_STRIPPED_NODE
#   debian           NODELEAK_TEST_DEBIAN_NODE, whose V8 is in a libnode.so beside it
set -u
name=$1
shift
node=
case $name in
  stripped) node=${NODELEAK_TEST_STRIPPED_NODE:-} ;;
  debian) node=${NODELEAK_TEST_DEBIAN_NODE:-} ;;
  *) for pair in ${NODELEAK_TEST_NODES:-}; do [[ ${pair%%=*} == "$name" ]] && node=${pair#*=}; done ;;
esac
if [[ -z $node ]]; then
  echo "skipped: no node \"$name\" in NODELEAK_TEST_NODES and its like"
  exit 77
fi
libraries=("${node%/bin/node}"/lib/*-linux-gnu)
if [[ -e ${libraries[0]} ]]; then
  LD_LIBRARY_PATH=$(IFS=:; echo "${libraries[*]}")
  export LD_LIBRARY_PATH
fi
exec env -u LD_PRELOAD -u NODELEAK_PRELOAD "$node" "$@"
