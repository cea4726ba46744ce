"""The V8 runtime and the process hooks of the shim, with a recorder that only logs (fake_recorder.cc).

Every program also runs bare: exit status, signal and stdout must be the same. Nodes come from NODELEAK_TEST_NODES
("18=/path 20=/path ..."); each test runs on each.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, 'program.js')
SHIM, PUPPET = (os.path.abspath(path) for path in sys.argv[1:3])
NODES = dict(item.split('=', 1) for item in os.environ.get('NODELEAK_TEST_NODES', '').split())
GRACE = 30  # seconds for anything; a hang is a failure, not a wait

AT_EXIT, EXIT_CALL, LIBC_AT_EXIT, BY_SIGNAL, ABORT = 1, 2, 3, 4, 5  # recording::FreezeReason
GC_DONE, GC_OFF, GC_NOT_REACHABLE = 1, 2, 3                         # recording::GcAtEnd


class Result:
    def __init__(self, status, stdout, log='', seconds=0):
        self.status, self.stdout, self.log = status, stdout, log
        self.seconds = seconds  # from the signal to the end
        self.pids = list(dict.fromkeys(line.split(' ', 1)[0] for line in log.splitlines()))

    def lines(self, pattern, pid=None):
        pid = pid or (self.pids[0] if self.pids else '')
        return [m for line in self.log.splitlines() if line.startswith(pid + ' ')
                for m in [re.search(pattern, line.split(' ', 1)[1])] if m]


def cpu_ticks(pid):
    with open(f'/proc/{pid}/stat') as file:
        return int(file.read().rsplit(')', 1)[1].split()[11])


def wait_for_poll(pid):
    """Until the main thread sleeps in epoll_wait or epoll_pwait."""
    for _ in range(GRACE * 1000):
        with open(f'/proc/{pid}/syscall') as file:
            if file.read().split(' ')[0] in ('232', '281'):
                return
        time.sleep(0.001)


def run(command, shim, send=None, env=None, stdin=None, times=1, busy_ticks=0, in_poll=False):
    """Runs to the end; `send` signals it once it has said that it is ready and has used `busy_ticks` of CPU."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('NODELEAK', 'LD_PRELOAD'))}
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, 'log')
        if shim:
            environment.update({'LD_PRELOAD': SHIM, 'NODELEAK_FAKE_LOG': log, 'NODELEAK_PRELOAD': SHIM})
        environment.update(env or {})
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   stdin=subprocess.PIPE if stdin else subprocess.DEVNULL)
        try:
            stdout = b''
            if send is not None:
                stdout = process.stdout.readline()
                while cpu_ticks(process.pid) < busy_ticks:
                    time.sleep(0.01)
                for i in range(times):
                    if i > 0:
                        stdout += process.stdout.readline()
                    if in_poll:
                        wait_for_poll(process.pid)
                    process.send_signal(send)
            sent = time.monotonic()
            stdout += process.communicate(stdin, timeout=GRACE)[0]
            seconds = time.monotonic() - sent
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        text = ''
        if os.path.exists(log):
            with open(log) as lines:
                text = lines.read()
        return Result(process.returncode, stdout.decode(), text, seconds)


def on_each_node(test):
    def run_on_each(self):
        for major, node in NODES.items():
            with self.subTest(node=major):
                test(self, node)
    return run_on_each


class RuntimeTest(unittest.TestCase):
    def both(self, command, **options):
        bare = run(command, False, **options)
        watched = run(command, True, **options)
        self.assertEqual((bare.status, bare.stdout), (watched.status, watched.stdout))
        return watched

    def expect_picture(self, result, reason, gc=GC_DONE, pid=None):
        """Before: the note. Then full collections. Then the freeze."""
        events = [m.group(1) for m in result.lines(r'^(NoteBeforeEndGc|Gc isolate=0 type=4|SetGcAtEnd|Freeze)', pid)]
        self.assertIn('NoteBeforeEndGc', events)
        end = events[events.index('NoteBeforeEndGc'):]
        self.assertEqual('Freeze', end[-1])
        if gc == GC_DONE:
            self.assertIn('Gc isolate=0 type=4', end)
        self.assertEqual([str(gc)], [m.group(1) for m in result.lines(r'^SetGcAtEnd (\d)', pid)])
        self.assertEqual([str(reason)], [m.group(1) for m in result.lines(r'^Freeze (\d)', pid)])
        self.assertFalse(result.lines('guard open', pid))

    @on_each_node
    def test_every_end_is_frozen_after_a_collection(self, node):
        for what, status in (('natural', 0), ('timer', 0), ('exit', 3), ('exitLater', 51), ('reallyExit', 5),
                             ('exitCode', 9), ('throws', 1), ('rejects', 1), ('exitListener', 0)):
            with self.subTest(what=what):
                result = self.both([node, PROGRAM, what])
                self.assertEqual(status, result.status)
                self.expect_picture(result, AT_EXIT)
                self.assertEqual(str(status), result.lines(r'^SetExitCode (\d+)')[-1].group(1))

    @on_each_node
    def test_programs_without_a_file_or_a_turn_of_the_loop(self, node):
        with tempfile.TemporaryDirectory() as folder:
            module = os.path.join(folder, 'never.mjs')
            with open(module, 'w') as file:
                file.write('console.log(1); await new Promise(() => {});')
            test = os.path.join(folder, 'a.test.mjs')
            with open(test, 'w') as file:
                file.write('import test from "node:test"; test("a", () => {});')
            for arguments, status in ((['-e', '1'], 0), (['-p', '6*7'], 0), (['--check', PROGRAM], 0),
                                      (['--input-type=module', '-e', 'console.log(2)'], 0), ([module], 13),
                                      (['-e', 'throw 1'], 1), ([test], 0)):
                with self.subTest(arguments=arguments):
                    bare, watched = (run([node] + arguments, shim) for shim in (False, True))
                    self.assertEqual((status, status), (bare.status, watched.status))
                    self.expect_picture(watched, AT_EXIT)
        self.expect_picture(self.both([node, '-'], stdin=b'console.log(3)'), AT_EXIT)

    @on_each_node
    def test_collection_at_the_end_can_be_turned_off(self, node):
        result = self.both([node, PROGRAM, 'natural'], env={'NODELEAK_GC': 'off'})
        self.expect_picture(result, AT_EXIT, GC_OFF)
        self.assertFalse(result.lines('type=4'))

    @on_each_node
    def test_abort_leaves_the_recording_as_it_stood(self, node):
        result = self.both([node, PROGRAM, 'aborts'])
        self.assertEqual(-signal.SIGABRT, result.status)
        self.assertEqual([str(ABORT)], [m.group(1) for m in result.lines(r'^Freeze (\d)')])

    @on_each_node
    def test_deadly_signal_waits_for_the_picture(self, node):
        for what in ('server', 'busy', 'waits', 'inSpawnSync'):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                with self.subTest(what=what, signal=number):
                    result = self.both([node, PROGRAM, what], send=number)
                    self.assertEqual(-number, result.status)
                    self.expect_picture(result, BY_SIGNAL)
                    self.assertEqual(str(int(number)), result.lines(r'^SetEndSignal (\d+)')[0].group(1))

    @on_each_node
    def test_deadly_signal_in_native_code_is_bounded(self, node):
        result = run([node, PROGRAM, 'inNative'], True, send=signal.SIGTERM, busy_ticks=40)
        self.assertLess(result.seconds, 4)
        self.assertEqual(-signal.SIGTERM, result.status)
        self.assertEqual(str(GC_NOT_REACHABLE), result.lines(r'^SetGcAtEnd (\d)')[0].group(1))
        self.assertEqual(str(BY_SIGNAL), result.lines(r'^Freeze (\d)')[0].group(1))

    @on_each_node
    def test_program_that_kills_itself_does_not_reach_its_next_line(self, node):
        for name in ('SIGTERM', 'SIGINT', 'SIGHUP'):
            with self.subTest(signal=name):
                result = self.both([node, PROGRAM, 'killsItself', name])
                self.assertEqual(-getattr(signal, name), result.status)
                self.assertEqual(1, len(result.lines(r'^Freeze')))

    @on_each_node
    def test_handler_of_the_program_runs_once(self, node):
        for number in (signal.SIGTERM, signal.SIGINT):
            result = self.both([node, PROGRAM, 'handler', number.name], send=number)
            self.assertEqual((1, 'ready\nhandled 1\n'), (result.status, result.stdout))
            self.expect_picture(result, AT_EXIT)
            self.expect_picture(self.both([node, PROGRAM, 'handlerOff', number.name], send=number), BY_SIGNAL)
            result = self.both([node, PROGRAM, 'handlerOnce', number.name], send=number, times=2)
            self.assertEqual(-number, result.status)
            self.expect_picture(result, BY_SIGNAL)

    @on_each_node
    def test_a_poll_that_a_signal_interrupts_is_no_turn_of_the_loop(self, node):
        result = self.both([node, PROGRAM, 'hundredSignals', 'SIGUSR2'], send=signal.SIGUSR2, times=100, in_poll=True)
        turns = int(result.lines(r'^Turns (\d+)')[0].group(1))
        # It polls three times for each signal: again, without waiting, and until the next one.
        self.assertGreaterEqual(turns, 200)
        self.assertLess(turns, 250)

    @on_each_node
    def test_each_worker_is_an_isolate(self, node):
        result = self.both([node, PROGRAM, 'workers'])
        self.expect_picture(result, AT_EXIT)
        registered = {m.group(1) for m in result.lines(r'^IsolateRegistered (\d+)')}
        self.assertEqual(7, len(registered))
        self.assertEqual(registered, {m.group(1) for m in result.lines(r'^IsolateDisposed (\d+)')})
        self.expect_picture(self.both([node, PROGRAM, 'workerAlive']), AT_EXIT)

    @on_each_node
    def test_collections_are_those_of_perf_hooks(self, node):
        result = run([node, '--expose-gc', PROGRAM, 'collections'], True)
        seen = dict(re.findall(r'"(\w+)":(\d+)', result.stdout))
        before_end = result.log.split('NoteBeforeEndGc')[0]
        types = [int(t) for t in re.findall(r'Gc isolate=0 type=(\d+)', before_end)]
        # A collection between our meeting the isolate and the program's observer is ours alone.
        self.assertGreater(int(seen['major']), 0)
        self.assertGreater(int(seen['minor']), 0)
        self.assertEqual(int(seen['major']), sum(1 for t in types if t & 4))
        self.assertLessEqual(0, sum(1 for t in types if t & 3) - int(seen['minor']))
        self.assertLessEqual(sum(1 for t in types if t & 3) - int(seen['minor']), 1)

    @on_each_node
    def test_heap_statistics_are_those_of_v8(self, node):
        result = self.both([node, PROGRAM, 'statistics'])
        wanted = dict(re.findall(r'"(\w+)":(\d+)', result.stdout))
        read = result.lines(r'^HeapStatistics 0 .*limit=(\d+).*contexts=(\d+)')
        self.assertEqual((wanted['limit'], wanted['contexts']), read[-1].groups())
        self.assertGreaterEqual(len(result.lines(r'^HeapSpace 0 ')), 8)
        self.assertTrue(result.lines(r'^Capability \d+ 1'))
        self.assertFalse(result.lines(r'^Capability \d+ 3'))

    @on_each_node
    def test_natural_end_is_seen_before_node_destroys_wrappers(self, node):
        result = self.both([node, PROGRAM, 'wrappers'])
        self.expect_picture(result, AT_EXIT)
        self.assertGreater(int(result.lines(r'^Freeze .*heap=(\d+)')[0].group(1)), 50 * 200 * 1024)

    @on_each_node
    def test_version_of_node(self, node):
        wanted = subprocess.run([node, '--version'], capture_output=True, text=True, check=True).stdout.strip()
        result = run([node, PROGRAM, 'natural'], True)
        self.assertEqual(wanted, result.lines(r'^Versions (\S+)')[0].group(1))

    @on_each_node
    def test_children_record_for_themselves(self, node):
        for what, processes in (('forks', 2), ('spawnsEmpty', 3), ('spawnsShell', 2), ('spawnsMissing', 1),
                                ('cluster', 3), ('signalledChild', 2)):
            with self.subTest(what=what):
                result = self.both([node, PROGRAM, what])
                pids = [pid for pid in result.pids if result.lines(r'^Start ', pid)]
                self.assertEqual(processes, len(pids))
                for pid in pids:
                    self.assertEqual(1, len(result.lines(r'^Freeze [14]', pid)), result.log)

    @on_each_node
    def test_environment_of_children(self, node):
        names = 'LD_PRELOAD NODELEAK_FAKE_LOG NODELEAK_PRELOAD'
        result = run([node, PROGRAM, 'environmentOfChild'], True)
        self.assertEqual(f'{names}\n{SHIM}\n', result.stdout)
        result = run([node, PROGRAM, 'environmentOfChild', 'libm.so.6'], True)
        self.assertEqual(f'{names}\n{SHIM}:libm.so.6\n', result.stdout)
        none = {'NODELEAK_CHILDREN': 'none'}
        result = run([node, PROGRAM, 'environmentOfChild', f'{SHIM}:libm.so.6'], True, env=none)
        self.assertEqual('LD_PRELOAD\nlibm.so.6\n', result.stdout)
        self.assertEqual(1, len([pid for pid in result.pids if result.lines('^Start ', pid)]))

    def test_programs_that_are_not_node(self):
        # A return from main is a call of exit: the picture comes before what static objects hold is destroyed.
        for what, status, frozen in (('returns', 11, EXIT_CALL), ('exits', 12, EXIT_CALL), ('leaves', 13, EXIT_CALL),
                                     ('quick', 14, EXIT_CALL), ('threads', 57, EXIT_CALL), ('vfork', 22, EXIT_CALL),
                                     ('fork', 32, EXIT_CALL), ('clone', 42, EXIT_CALL),
                                     ('dispositions', 61, EXIT_CALL), ('execFails', 71, EXIT_CALL),
                                     ('killed', -signal.SIGTERM, None)):
            with self.subTest(what=what):
                result = self.both([PUPPET, what], env={'FAKE_ALL': '1'})
                self.assertEqual(status, result.status)
                self.assertEqual([] if frozen is None else [str(frozen)],
                                 [m.group(1) for m in result.lines(r'^Freeze (\d)')])
                if frozen is not None:
                    self.assertEqual([str(status)] * len(result.lines('^SetExitCode')),
                                     [m.group(1) for m in result.lines(r'^SetExitCode (\d+)')])

    def test_threads_are_seen_from_creation_to_end(self):
        result = run([PUPPET, 'threads'], True, env={'FAKE_ALL': '1'})
        self.assertEqual(3, len(result.lines('^ThreadStarted')))
        self.assertEqual(3, len(result.lines('^ThreadEnding')))

    def test_exec_of_the_recorded_process(self):
        result = self.both([PUPPET, 'execs'], env={'FAKE_ALL': '1', 'NODELEAK_CHILDREN': 'none'})
        self.assertEqual(11, result.status)
        self.assertEqual(2, len(result.lines('^Start ')))  # the same pid, before and after
        self.assertEqual(1, len(result.lines('^WillExec')))
        failed = self.both([PUPPET, 'execFails'], env={'FAKE_ALL': '1'})
        self.assertEqual(1, len(failed.lines('^ExecFailed')))

    def test_inert_in_programs_that_are_not_recorded(self):
        for what in ('returns', 'exits', 'leaves', 'threads', 'vfork', 'fork', 'clone', 'dispositions', 'execFails',
                     'killed'):
            with self.subTest(what=what):
                self.assertEqual('', self.both([PUPPET, what]).log)


if __name__ == '__main__':
    if not NODES:
        print('NODELEAK_TEST_NODES is not set: ./test fetches the nodes')
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
