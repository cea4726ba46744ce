#!/usr/bin/env python3
"""clang-tidy over every source file of the build. A file that passed is remembered by what it consists of: the text of
itself and of every file of the repository that it includes, its compile command and the settings. Slow only at first."""
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

# What g++ accepts and clang does not even parse, so that there is nothing to check.
GCC_ONLY = {
    "preload/hooks/exec_hooks.cc",        # exception specifications that differ from the C library's headers
    "preload/hooks/memory_originals.cc",  # a constinit table of function addresses
}

INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.M)


def closure(root, path, seen):
    """`path` and the repository's headers that it includes, directly or not."""
    if path in seen or not os.path.isfile(path):
        return seen
    seen.add(path)
    for name in INCLUDE.findall(open(path, "rb").read()):
        closure(root, os.path.join(root, name.decode()), seen)
    return seen


def fingerprint(root, entry, settings):
    """The same in every checkout of the same text."""
    digest = hashlib.sha256(settings + entry["command"].replace(root, "").encode())
    for path in sorted(closure(root, entry["file"], set())):
        digest.update(os.path.relpath(path, root).encode() + b"\0" + open(path, "rb").read())
    return digest.hexdigest()


def check(entry, build):
    result = subprocess.run(["clang-tidy", "--quiet", "-p", build, entry["file"]], capture_output=True, text=True)
    return entry, result.returncode, result.stdout


def main(root, build):
    if shutil.which("clang-tidy") is None:
        print("clang-tidy is not installed")
        return 77
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True).stdout
    settings = version + open(os.path.join(root, ".clang-tidy"), "rb").read()
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nodeleak", "tidy")
    os.makedirs(cache, exist_ok=True)
    entries = json.load(open(os.path.join(build, "compile_commands.json")))
    # Tests are read by people; their macros are not worth the minutes.
    entries = [e for e in entries if e["file"].startswith(root) and not e["file"].startswith(os.path.join(root, "tests"))]
    entries = [e for e in entries if os.path.relpath(e["file"], root) not in GCC_ONLY]
    entries = {e["file"]: e for e in entries if not e["file"].startswith(build)}.values()
    work = [(e, os.path.join(cache, fingerprint(root, e, settings))) for e in entries]
    work = [(e, mark) for e, mark in work if not os.path.exists(mark)]
    print(f"{len(entries)} files, {len(work)} changed since they passed", flush=True)
    failed = 0
    marks = {e["file"]: mark for e, mark in work}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for entry, code, output in pool.map(lambda item: check(item[0], build), work):
            if code == 0:
                open(marks[entry["file"]], "w").close()
            else:
                failed += 1
                print(output, flush=True)
    print(f"{failed} files failed")
    return 1 if failed or not entries else 0


if __name__ == "__main__":
    sys.exit(main(os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])))
