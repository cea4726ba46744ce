#!/usr/bin/env bash
# Every tracked C++ file is as clang-format leaves it.
set -u
cd "$1" || exit 1
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
mapfile -d '' -t files < <(git ls-files -z '*.h' '*.cc')
(( ${#files[@]} > 0 )) || { echo "no tracked sources"; exit 1; }
clang-format --dry-run --Werror "${files[@]}" 2>&1 | grep 'warning:\|error:' && {
  echo "run: clang-format -i FILE"
  exit 1
}
echo "${#files[@]} files are formatted"
