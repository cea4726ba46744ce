#!/usr/bin/env python3
"""Who may include whom: the table of docs/architecture.md, kept by reading every #include of the tracked sources."""
import os
import re
import subprocess
import sys

# folder -> folders whose headers it may include (its own is always allowed). The longest matching prefix counts.
MAY_INCLUDE = {
    "recording": [],
    "memory": ["recording/layout.h"],
    "preload/base": [],
    "preload/unwind": ["preload/base", "preload/v8/js_frames.h", "recording/layout.h"],
    "preload/v8": ["preload/base", "preload/unwind", "preload/recorder", "recording/layout.h"],
    "preload/recorder": ["preload/base", "preload/unwind", "preload/v8", "memory", "recording/layout.h"],
    "preload/hooks": ["preload/base", "preload/unwind", "preload/v8", "preload/recorder", "recording/layout.h",
                      "recording/attach_control.h"],
    "tracer": ["recording"],
    "symbolizer": [],
    "report": ["recording", "symbolizer", "memory"],
    "cli": ["recording", "symbolizer", "report", "tracer", "memory"],
    "tests": ["recording", "memory", "preload", "tracer", "symbolizer", "report", "cli"],
    "bench": ["recording", "memory", "preload", "tracer", "symbolizer", "report", "cli", "tests/support"],
    "examples": [],
}
# What a folder may take from outside the repository, beside the standard and system headers.
NO_ABSEIL = ["preload", "memory"]
LIBRARIES = {
    "absl/": ["recording", "tracer", "symbolizer", "report", "cli", "tests", "bench"],
    "capstone/": ["tracer", "symbolizer", "tests"],
    "elfutils/": ["symbolizer", "tests"],
    "dwarf.h": ["symbolizer", "tests"],
    "libelf.h": ["symbolizer", "tests"],
    "gelf.h": ["symbolizer", "tests"],
    "benchmark/": ["bench"],
    "libunwind": ["preload/unwind", "preload/hooks", "tracer", "tests", "bench"],
    "gtest/": ["tests"],
    "gmock/": ["tests"],
}
# Containers, streams and exceptions must not get into the shim; these headers bring no code along.
SHIM_CPP_HEADERS = {"cstddef", "cstdint", "type_traits", "atomic", "new", "utility", "initializer_list", "limits", "bit"}

# Shared by the two worlds.
FREESTANDING = {"recording/layout.h", "recording/requests.h", "recording/attach_control.h"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def under(path, folder):
    return path == folder or path.startswith(folder + "/")


def folder_of(path):
    matching = [folder for folder in MAY_INCLUDE if under(path, folder)]
    return max(matching, key=len) if matching else None


def check_include(path, folder, quoted, name):
    """The sentence that says what is wrong, or None."""
    if quoted:
        if any(under(name, allowed) for allowed in MAY_INCLUDE[folder] + [folder]):
            return None
        if folder_of(name) is None and "/" not in name:
            return f'includes "{name}": write the path from the root of the repository'
        return f"{folder}/ may not include {name}"
    for library, folders in LIBRARIES.items():
        if name.startswith(library) and not any(under(path, allowed) for allowed in folders):
            return f"{folder}/ may not use {name}"
    is_cpp = "." not in name and "/" not in name
    if any(under(path, shim) for shim in NO_ABSEIL) and is_cpp and name not in SHIM_CPP_HEADERS:
        return f"the shim may not use <{name}>"
    if path in FREESTANDING and name != "stdint.h":
        return f"{path} is freestanding and may not use <{name}>"
    return None


def main(root):
    os.chdir(root)
    listed = subprocess.run(["git", "ls-files", "*.h", "*.cc"], capture_output=True, text=True, check=True).stdout
    complaints = []
    files = listed.split()
    for path in files:
        folder = folder_of(path)
        if folder is None:
            complaints.append(f"{path}: no folder of the design")
            continue
        if not os.path.exists(path):
            continue
        for number, line in enumerate(open(path, encoding="utf-8"), 1):
            match = INCLUDE.match(line)
            # A library's header may be written in quotes: it is one all the same.
            quoted = match and match[1] == '"' and not any(match[2].startswith(library) for library in LIBRARIES)
            complaint = match and check_include(path, folder, quoted, match[2])
            if complaint:
                complaints.append(f"{path}:{number}: {complaint}")
    print("\n".join(complaints) or f"{len(files)} files keep the directions")
    return 1 if complaints or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
