"""What the tests of attaching share. The first arguments of each: NODELEAK SHIM FOLDER_OF_PROGRAMS."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
NODELEAK, SHIM, PROGRAMS = (os.path.abspath(path) for path in sys.argv[1:4])
DRIVER = os.path.join(PROGRAMS, 'attach_driver')
SERVER = os.path.join(HERE, 'programs', 'server.js')
NODES = dict(item.split('=', 1) for item in os.environ.get('NODELEAK_TEST_NODES', '').split())
GRACE = 60  # seconds for anything; a hang is a failure, not a wait


def program(name):
    return os.path.join(PROGRAMS, 'attach_' + name)


class Target:
    """A process that says "ready", goes on until its stdin ends or says "end", and then tells how it went."""

    def __init__(self, command, handshake=True, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.pid = self.process.pid
        if handshake:
            line = self.process.stdout.readline()
            assert line == 'ready\n', line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def say(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self, last_word=None):
        """The exit status, and what it said at last."""
        output = self.process.communicate(last_word, timeout=GRACE)[0]
        return self.process.returncode, output

    def descriptors(self):
        return sorted(os.readlink(f'/proc/{self.pid}/fd/{fd}').split(':')[0] for fd in os.listdir(f'/proc/{self.pid}/fd'))

    def mappings(self):
        with open(f'/proc/{self.pid}/maps') as maps:
            return maps.read()


def preload(name):
    return dict(os.environ, LD_PRELOAD=os.path.join(PROGRAMS, f'libattach_{name}.so'))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=GRACE, **options)


def numbers(text):
    return {name: int(value) for name, value in re.findall(r'^(\w+) (\d+)$', text, re.M)}


class AttachTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='attach.')
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def program_file(self, name, source):
        with open(self.path(name), 'w') as file:
            file.write(source)
        return self.path(name)

    def driver(self, *arguments):
        result = run(DRIVER, *map(str, arguments))
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        return numbers(result.stdout)

    def cycles(self, target, count, on_ms=100, off_ms=20):
        result = self.driver('cycles', target.pid, SHIM, self.path('cycles.rec'), count, on_ms, off_ms)
        self.assertEqual(0, result['failed'])
        return result

    def nodeleak(self, *arguments, status=0, **options):
        result = run(NODELEAK, *map(str, arguments), cwd=self.folder, **options)
        self.assertEqual(status, result.returncode, result.stdout + result.stderr)
        return result

    def attach(self, target, *options, duration='300ms'):
        report = self.path('report.json')
        result = self.nodeleak('attach', f'--duration={duration}', f'--report={report}', '--quiet', *options, target.pid)
        with open(report) as file:
            return json.load(file), result

    def expect_clean_text(self, target):
        text = self.driver('text', target.pid)
        self.assertGreater(text['compared'], 1_000_000)
        self.assertEqual(0, text['differ'])
