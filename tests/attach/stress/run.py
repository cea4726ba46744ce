"""Attaches to processes that do everything at once, many times, and kills the tracer at random moments. By hand, minutes.

run.py DRIVER SHIM [--cycles=100] [--kills=50] [--on=60] [--off=60] [--preload=LIBRARY] [--addon=FILE] NODE...

For each node one line: how long the process stood still (as the tracer measured it), and what of the process was wrong.
The exit status is 0 when nothing was.
"""
import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 900  # seconds; a hang is a failure


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument('driver')
    parser.add_argument('shim')
    parser.add_argument('nodes', nargs='+')
    for name, value in (('cycles', 100), ('kills', 50), ('on', 60), ('off', 60)):
        parser.add_argument('--' + name, type=int, default=value)
    parser.add_argument('--preload', default='')
    parser.add_argument('--addon')
    return parser.parse_args()


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE)


def numbers(text):
    return {name: int(value) for name, value in re.findall(r'^(\w+) (-?\d+)$', text, re.M)}


def own_mappings(pid):
    """Mappings that are ours, each line without its addresses."""
    with open(f'/proc/{pid}/maps') as maps:
        return sorted(line.split()[1] + ' ' + line.split()[-1] for line in maps if 'memfd' in line or '.rec' in line)


def own_descriptors(pid):
    """Descriptors from where the recorder puts its own on, and memory files."""
    found = []
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            name = os.readlink(f'/proc/{pid}/fd/{fd}')
        except FileNotFoundError:
            continue
        if int(fd) >= 900 or 'memfd' in name or name.endswith('.rec'):
            found.append(name)
    return found


def kill_at_random(options, pid, recording):
    """Attach and detach in a loop, each killed after a random time. How many were killed."""
    killed = 0
    for _ in range(options.kills):
        tracer = subprocess.Popen([options.driver, 'cycles', str(pid), options.shim, recording, '1', '5', '0'],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.4))
        tracer.kill()
        killed += tracer.wait() == -signal.SIGKILL
    return killed


def one_node(options, node, folder):
    recording = os.path.join(folder, 'stress.rec')
    environment = dict(os.environ, LD_PRELOAD=options.preload, TMPDIR=folder)
    command = [node, os.path.join(HERE, 'target.js')] + ([options.addon] if options.addon else [])
    target = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert target.stdout.readline() == 'ready\n'
    wrong = []

    def cycles(count):
        result = run(options.driver, 'cycles', target.pid, options.shim, recording, count, options.on, options.off)
        if result.returncode != 0:
            wrong.append(result.stderr.strip()[-1000:] or f'the tracer ended with {result.returncode}')
        return numbers(result.stdout), result.stderr

    try:
        cycles(3)
        before = own_mappings(target.pid), own_descriptors(target.pid)
        measured, notes = cycles(options.cycles)
        killed = kill_at_random(options, target.pid, recording)
        if killed:
            cycles(3)
        if (own_mappings(target.pid), own_descriptors(target.pid)) != before:
            wrong.append(f'left in it: {own_mappings(target.pid)} {own_descriptors(target.pid)}, was {before}')
        text = numbers(run(options.driver, 'text', target.pid).stdout)
        if text.get('differ') != 0:
            wrong.append(f'text: {text}')
        said = target.communicate(timeout=60)[0]
    except (subprocess.TimeoutExpired, FileNotFoundError, ProcessLookupError) as error:
        wrong.append(f'hangs or is gone: {error}')
        target.kill()
        said = ''
    counts = json.loads(said) if said.startswith('{') else {'said': said}
    if target.wait() != 0:
        wrong.append(f'it ended with {target.returncode}')
    kept = ('cycles', 'failed', 'pauses', 'pause_p50', 'pause_p95', 'pause_max', 'attach_p50_ms')
    print(node, {name: measured[name] for name in kept if name in measured}, f'killed {killed}', counts,
          'WRONG: ' + '; '.join(wrong) if wrong else 'nothing wrong', notes.strip(), flush=True)
    return not wrong


def main():
    options = parse()
    options.driver, options.shim = os.path.abspath(options.driver), os.path.abspath(options.shim)
    with tempfile.TemporaryDirectory(prefix='attach.') as folder:
        results = [one_node(options, node, folder) for node in options.nodes]
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
