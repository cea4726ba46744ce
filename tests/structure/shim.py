#!/usr/bin/env python3
"""What the shim shows to the dynamic linker: the symbols it exports, what it needs, how much TLS it takes.

  shim.py exports SHIM [--update]   equal to exported_symbols.txt, one symbol a line
  shim.py imports SHIM              libc and libunwind only, no glibc newer than Debian 12's predecessors offer
  shim.py tls SHIM                  static TLS under 1 KB"""
import os
import re
import subprocess
import sys

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "exported_symbols.txt")
ALLOWED_LIBRARIES = re.compile(r"libc\.so\.6|libunwind(-x86_64)?\.so\.8|ld-linux-x86-64\.so\.2")
NEWEST_GLIBC = (2, 34)  # older systems than the one that builds must be able to load it
MAX_TLS_BYTES = 1024
# Of the C++ runtime or the exception machinery: their presence means that something of C++ came along.
FORBIDDEN_IMPORTS = re.compile(r"_Zn[wa]m|_Zd[la]Pv|__cxa_(throw|begin_catch|guard_|allocate)|_Unwind_|__gxx_personality|_ZSt")


def read(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(shim, *options):
    lines = [line.split() for line in read("nm", "-D", *options, shim).splitlines()]
    return sorted(line[-1] for line in lines if line)


def check_exports(shim):
    exported = symbols(shim, "--defined-only", "--without-symbol-versions")
    if "--update" in sys.argv:
        with open(LIST, "w") as out:
            out.write("".join(name + "\n" for name in exported))
    committed = open(LIST).read().split()
    for name in sorted(set(exported) - set(committed)):
        yield f"exports {name}, which exported_symbols.txt does not have"
    for name in sorted(set(committed) - set(exported)):
        yield f"does not export {name}, which exported_symbols.txt has"


def check_imports(shim):
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", read("readelf", "-dW", shim))
    for library in needed:
        if not ALLOWED_LIBRARIES.fullmatch(library):
            yield f"needs {library}"
    for name in symbols(shim, "--undefined-only"):
        version = re.search(r"@+GLIBC_(\d+)\.(\d+)", name)
        if version and (int(version[1]), int(version[2])) > NEWEST_GLIBC:
            yield f"imports {name}"
        if FORBIDDEN_IMPORTS.match(name):
            yield f"imports {name}, which belongs to the C++ runtime"


def check_tls(shim):
    for line in read("readelf", "-lW", shim).splitlines():
        fields = line.split()
        if fields and fields[0] == "TLS" and int(fields[5], 16) >= MAX_TLS_BYTES:
            yield f"takes {int(fields[5], 16)} bytes of static TLS of every thread"


if __name__ == "__main__":
    checks = {"exports": check_exports, "imports": check_imports, "tls": check_tls}
    complaints = list(checks[sys.argv[1]](sys.argv[2]))
    for complaint in complaints:
        print(f"{sys.argv[2]} {complaint}")
    sys.exit(1 if complaints else 0)
