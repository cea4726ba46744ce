# Sourced by ./nodeleak and ./test: installs missing Debian packages, configures and builds a CMake preset.
# Everything is said on stderr: stdout belongs to the program that nodeleak runs.

# What a build needs. ./test adds to it.
BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libunwind-dev libabsl-dev libcapstone-dev libdw-dev libelf-dev
                libbz2-dev liblzma-dev libzstd-dev zlib1g-dev)

say() { printf 'nodeleak: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

missing_packages() {  # those of the arguments that are not installed, one a line
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

# Installs what is missing of the packages named, or ends with a sentence that names them.
install_packages() {
  command -v dpkg-query >/dev/null || {
    say "not a Debian system: taking for granted that these are installed: $*"
    return 0
  }
  local missing output as_root=()
  mapfile -t missing < <(missing_packages "$@")
  (( ${#missing[@]} == 0 )) && return 0
  if (( $(id -u) != 0 )); then
    command -v sudo >/dev/null || fail "these Debian packages are missing and only root can install them (there is no" \
      "sudo here): ${missing[*]}. As root: apt-get install ${missing[*]}"
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n)
  fi
  say "installing the Debian packages ${missing[*]} (${as_root[*]:+${as_root[*]} }apt-get install)"
  if ! output=$({ "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends "${missing[@]}"; } 2>&1 </dev/null); then
    grep -E '^(E:|Err:|sudo:)' <<<"$output" | head -5 >&2
    fail "cannot install these Debian packages: ${missing[*]} (offline, or no rights to?)." \
      "Install them, for example: sudo apt-get install ${missing[*]}"
  fi
}

CONFIGURE_OPTIONS=()  # of the first configuration; ./test adds to it

# build_preset NAME: configures at first use, then builds; quiet unless it fails.
build_preset() {
  local preset=$1 dir=$ROOT/build/$1 log
  log=$dir/build.log
  mkdir -p "$dir" || fail "cannot create $dir: is the source tree writable?"
  (
    flock 9  # two of us at once: the second finds everything built
    cd "$ROOT" || exit 1
    { { [[ -f $dir/build.ninja ]] || cmake --preset "$preset" "${CONFIGURE_OPTIONS[@]}"; } && cmake --build --preset "$preset"; } >"$log" 2>&1
  ) 9>"$dir/.lock" && return 0
  { grep -E -A12 'error|Error|FAILED' "$log" || tail -n 12 "$log"; } | head -60 >&2
  fail "cannot build preset '$preset'; the whole log is $log"
}
