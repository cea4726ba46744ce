#!/usr/bin/env python3
"""guard.py COST_GUARD: fails when the hot path takes 20 % more instructions than the committed figure.

Instructions are counted by callgrind, so the load of the machine does not matter. Two lengths of run are subtracted:
what is left is what one allocation and its free cost. A real gain: commit the new figure, so that it stays."""
import re
import shutil
import subprocess
import sys
import tempfile

# Instructions of one recorded allocation on a stack of 30 frames and of its free. Debian 12, g++ 12.2, -O2.
COMMITTED = 1200
ALLOWED = 1.20
FEW, MANY = 2_000, 22_000


def instructions(program, rounds):
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out", program, str(rounds)],
                             capture_output=True, text=True, check=False)
    counted = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or counted is None:
        sys.exit(f"{program} {rounds} under callgrind ended with {run.returncode}:\n{run.stderr}")
    return int(counted.group(1))


def main():
    if shutil.which("valgrind") is None:
        print("skipped: no valgrind")
        sys.exit(77)
    each = (instructions(sys.argv[1], MANY) - instructions(sys.argv[1], FEW)) / (MANY - FEW)
    print(f"{each:.0f} instructions for an allocation and its free; committed: {COMMITTED}, allowed: {COMMITTED * ALLOWED:.0f}")
    if each > COMMITTED * ALLOWED:
        sys.exit("the hot path has become more expensive (bench/guard.py says what is counted)")


if __name__ == "__main__":
    main()
