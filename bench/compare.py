#!/usr/bin/env python3
"""Runs each workload bare and under each tool, in turn, and prints medians as Markdown. Started by ./bench/run."""
import argparse
import collections
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

from tools import TOOLS
from workloads import WORKLOADS

Run = collections.namedtuple("Run", "cpu wall rss written")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="node 24, two counted runs, a fifth of the work")
    parser.add_argument("--only", help="workloads, by comma: " + ",".join(w.name for w in WORKLOADS))
    parser.add_argument("--tools", help="tools, by comma: " + ",".join(t.name for t in TOOLS))
    parser.add_argument("--nodes", help="majors, by comma (20,24,26)")
    parser.add_argument("--runs", type=int, help="counted runs of each (5)")
    parser.add_argument("--scale", type=float, help="share of the work (1)")
    parser.add_argument("--keep", help="keep what the tools write in this directory")
    for internal in ("--nodeleak", "--node-cache", "--cache"):
        parser.add_argument(internal, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.nodes = (options.nodes or ("24" if options.quick else "20,24,26")).split(",")
    options.runs = options.runs or (2 if options.quick else 5)
    options.scale = options.scale or (0.2 if options.quick else 1)
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
    environment = {**os.environ, **tool.environment(directory)}
    argv = tool.prefix(options, directory) + command
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench/run: {' '.join(argv)} ended with {process.returncode}:\n{said.decode(errors='replace')[-2000:]}")
    written = bytes_in(directory)
    if options.keep is None:
        shutil.rmtree(directory)
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024, written)


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def compare(workload, node, tools, options, directory):
    """{tool name: [Run...]}; one warm-up of each, then round by round so that the machine's moods hit all alike."""
    scratch = os.path.join(directory, "scratch")
    os.makedirs(scratch, exist_ok=True)
    command = workload.command(node, options, scratch)
    runs = {tool.name: [] for tool in tools}
    for turn in range(-1, options.runs):
        for tool in tools:
            if turn >= tool.most_runs or (turn < 0 and tool.most_runs == 1):
                continue
            run = measure(tool, command, options, os.path.join(directory, f"{tool.name}.{turn}"))
            if turn >= 0:
                runs[tool.name].append(run)
    shutil.rmtree(scratch)
    return runs


def human_bytes(count):
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.0f} KiB"


def row_of(workload, tool, runs, bare):
    cpu, wall = median([run.cpu for run in runs]), median([run.wall for run in runs])
    bare_cpu, bare_wall = median([run.cpu for run in bare]), median([run.wall for run in bare])
    cells = [workload.name, tool.title, f"{cpu:.2f}", f"{wall:.2f}"]
    if tool.name == "bare":
        cells += ["", "", ""]
    else:
        # Pair by pair where there are as many runs: the machine was in the same mood for both.
        pairs = [run.cpu / other.cpu for run, other in zip(runs, bare)]
        cells += [f"{median(pairs):.2f}", f"{(cpu - bare_cpu) * 1000:+.0f} ms", f"{wall / bare_wall:.2f}"]
    cells += [human_bytes(median([run.rss for run in runs])), human_bytes(median([run.written for run in runs]))]
    return "| " + " | ".join(cells) + " |"


def describe_machine(options):
    with open("/proc/cpuinfo", encoding="ascii") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    version = subprocess.run([options.nodeleak, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, Linux {platform.release()}, load {load} at "
          f"the start. {version}. Medians of {options.runs} runs after a warm-up, in turn; share of the work "
          f"{options.scale}. CPU is user and system time of all processes of a run, in seconds; the ratio is the median of "
          "the pairs.")


def main():
    options = parse_arguments()
    tools = chosen(TOOLS, options.tools, "tool")
    tools = [tool for tool in tools if tool.available()]
    if not any(tool.name == "bare" for tool in tools):
        tools.insert(0, next(tool for tool in TOOLS if tool.name == "bare"))
    workloads = chosen(WORKLOADS, options.only, "workload")
    describe_machine(options)
    base = options.keep or tempfile.mkdtemp(prefix="nodeleak-bench.")
    try:
        for major in options.nodes:
            node = os.path.join(options.node_cache, major, "bin", "node")
            version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
            print(f"\n### node {version}\n\n| workload | tool | CPU s | wall s | CPU ratio | CPU added | wall ratio | "
                  "peak RSS | written |\n|---|---|---|---|---|---|---|---|---|", flush=True)
            for workload in workloads:
                why_not = workload.missing(int(major), options)
                if why_not:
                    print(f"| {workload.name} | {why_not} | | | | | | | |", flush=True)
                    continue
                runs = compare(workload, node, tools, options, os.path.join(base, f"{major}.{workload.name}"))
                for tool in tools:
                    print(row_of(workload, tool, runs[tool.name], runs["bare"]), flush=True)
    finally:
        if options.keep is None:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
