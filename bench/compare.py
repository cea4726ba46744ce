#!/usr/bin/env python3
"""Runs each workload bare and under each tool, in turn, and prints medians as Markdown. Started by ./bench/run."""
import argparse
import collections
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tools import TOOLS
from workloads import WORKLOADS

Run = collections.namedtuple("Run", "cpu wall rss written")
COLUMNS = ("workload", "tool", "CPU s", "wall s", "CPU ratio", "CPU added", "of heaptrack's", "wall ratio", "peak RSS",
           "written", "runs")
# With it, node 18 and 20 parse all of those certificates at each start: 430,000 allocations that no workload asks for.
LEFT_OUT = {"NODE_EXTRA_CA_CERTS"}
LONGEST_RUN = 120  # seconds; heaptrack on the slowest workload takes 10


class Failed(Exception):
    pass


class Clock:
    """Keeps all in the time given: a workload gets its share of what is left, and fewer counted runs when that is
    little."""

    def __init__(self, minutes, rows):
        self.end = time.monotonic() + minutes * 60
        self.rows = rows

    def counted_runs(self, wanted, one_round):
        share = (self.end - time.monotonic()) / max(1, self.rows)
        return max(1, min(wanted, int(share / one_round)))

    def row_done(self):
        self.rows -= 1

    def is_over(self):
        return time.monotonic() >= self.end


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four tools, two counted runs, 12 minutes")
    parser.add_argument("--only", help="workloads, by comma: " + ",".join(w.name for w in WORKLOADS))
    parser.add_argument("--tools", help="tools, by comma: " + ",".join(t.name for t in TOOLS))
    parser.add_argument("--nodes", help="majors, by comma (20,24,26)")
    parser.add_argument("--runs", type=int, help="counted runs of each (5)")
    parser.add_argument("--scale", type=float, help="share of the work (1)")
    parser.add_argument("--minutes", type=float, help="fewer runs when it would take longer (90)")
    parser.add_argument("--keep", help="keep what the tools write in this directory")
    for internal in ("--nodeleak", "--node-cache", "--cache"):
        parser.add_argument(internal, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.nodes = (options.nodes or "20,24,26").split(",")
    options.tools = options.tools or ("bare,nodeleak,sampled,heaptrack" if options.quick else None)
    options.runs = options.runs or (2 if options.quick else 5)
    options.scale = options.scale or 1
    options.minutes = options.minutes or (12 if options.quick else 90)
    return options


def chosen(rows, names, what):
    if names is None:
        return [row for row in rows if row.by_default]
    known = {row.name: row for row in rows}
    missing = [name for name in names.split(",") if name not in known]
    if missing:
        sys.exit(f"bench/run: no such {what}: {', '.join(missing)} (there are {', '.join(known)})")
    return [known[name] for name in names.split(",")]


def bytes_in(directory):
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(directory) for name in names)


def measure(tool, command, options, directory):
    """One run. CPU is that of the process and of all its descendants that were waited for."""
    os.makedirs(directory, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    environment.update(tool.environment(directory))
    argv = tool.prefix(options, directory) + command
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    too_long = threading.Timer(LONGEST_RUN, os.killpg, (process.pid, signal.SIGKILL))
    too_long.start()
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    too_long.cancel()
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print(f"bench/run: {' '.join(argv)} ended with {process.returncode} after {wall:.0f} s:\n"
              f"{said.decode(errors='replace')[-2000:]}", file=sys.stderr)
        raise Failed(f"ended with {process.returncode} after {wall:.0f} s")
    written = bytes_in(directory)
    if options.keep is None:
        shutil.rmtree(directory)
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024, written)


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def compare(workload, node, tools, options, clock, directory):
    """{tool name: [Run...]}, {tool name: why it failed}; one warm-up of each, then round by round so that the machine's
    moods hit all alike."""
    scratch = os.path.join(directory, "scratch")
    os.makedirs(scratch, exist_ok=True)
    command = workload.command(node, options, scratch)
    runs, failed = {tool.name: [] for tool in tools}, {}

    def one_round(turn):
        for tool in tools:
            if tool.name in failed or turn >= tool.most_runs or (turn < 0 and tool.most_runs == 1):
                continue
            try:
                run = measure(tool, command, options, os.path.join(directory, f"{tool.name}.{turn}"))
            except Failed as why:
                failed[tool.name] = str(why)
                continue
            if turn >= 0:
                runs[tool.name].append(run)

    started = time.monotonic()
    one_round(-1)
    for turn in range(clock.counted_runs(options.runs, time.monotonic() - started)):
        one_round(turn)
    shutil.rmtree(scratch)
    return runs, failed


def human_bytes(count):
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.0f} KiB"


def added_cpu(runs, bare):
    """Pair by pair: the machine was in the same mood for both."""
    return median([run.cpu - other.cpu for run, other in zip(runs, bare)])


def table_row(cells):
    return "| " + " | ".join(cells + [""] * (len(COLUMNS) - len(cells))) + " |"


def row_of(workload, tool, runs, failed):
    of_tool, bare = runs[tool.name], runs["bare"]
    if tool.name in failed or not bare:
        return table_row([workload.name, tool.title, failed.get(tool.name, "no bare run to compare with")])
    cpu, wall = median([run.cpu for run in of_tool]), median([run.wall for run in of_tool])
    cells = [workload.name, tool.title, f"{cpu:.2f}", f"{wall:.2f}"]
    if tool.name == "bare":
        cells += ["", "", "", ""]
    else:
        added, heaptrack = added_cpu(of_tool, bare), runs.get("heaptrack")
        ratio = median([run.cpu / other.cpu for run, other in zip(of_tool, bare)])
        share = f"{added / added_cpu(heaptrack, bare):.2f}" if heaptrack and tool.name != "heaptrack" else ""
        wall_ratio = wall / median([run.wall for run in bare])
        cells += [f"{ratio:.2f}", f"{added * 1000:+.0f} ms", share, f"{wall_ratio:.2f}"]
    cells += [human_bytes(median([run.rss for run in of_tool])), human_bytes(median([run.written for run in of_tool])),
              str(len(of_tool))]
    return table_row(cells)


def describe_machine(options):
    with open("/proc/cpuinfo", encoding="ascii") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    version = subprocess.run([options.nodeleak, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, Linux {platform.release()}, load {load} at "
          f"the start. {version}. Medians of at most {options.runs} counted runs after a warm-up, in turn; share of the "
          f"work {options.scale:.2g}. CPU is user and system time of all processes of a run, in seconds; ratios and "
          "differences are medians of the pairs.")


def main():
    options = parse_arguments()
    wanted = chosen(TOOLS, options.tools, "tool")
    tools = [tool for tool in wanted if tool.available()]
    if not any(tool.name == "bare" for tool in tools):
        tools.insert(0, next(tool for tool in TOOLS if tool.name == "bare"))
    workloads = chosen(WORKLOADS, options.only, "workload")
    print(f"bench/run: {len(workloads)} workloads, node {', '.join(options.nodes)}; at most about {options.minutes:.0f} "
          "minutes, plus a minute or two for the last ones", file=sys.stderr)
    describe_machine(options)
    if len(tools) < len(wanted):
        print("\nNot installed here: " + ", ".join(tool.title for tool in wanted if not tool.available()) + ".")
    clock = Clock(options.minutes, len(workloads) * len(options.nodes))
    base = options.keep or tempfile.mkdtemp(prefix="nodeleak-bench.")
    try:
        for major in options.nodes:
            node = os.path.join(options.node_cache, major, "bin", "node")
            version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
            print(f"\n### node {version}\n\n{table_row(list(COLUMNS))}\n|{'---|' * len(COLUMNS)}", flush=True)
            for workload in workloads:
                why_not = workload.missing(int(major), options) or ("out of time" if clock.is_over() else None)
                if why_not:
                    print(table_row([workload.name, "left out: " + why_not]), flush=True)
                else:
                    print(f"bench/run: node {major}, {workload.name}", file=sys.stderr)
                    runs, failed = compare(workload, node, tools, options, clock,
                                           os.path.join(base, f"{major}.{workload.name}"))
                    for tool in tools:
                        print(row_of(workload, tool, runs, failed), flush=True)
                clock.row_done()
    finally:
        if options.keep is None:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
