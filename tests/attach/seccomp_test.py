"""Attaching to processes under seccomp filters: what would end them is refused before it is done, by its name.

seccomp_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import json
import os
import shutil
import signal
import sys
import time
import unittest

from attach_support import AttachTest, DRIVER, NODELEAK, NODES, SHIM, Target, numbers, program, run

ACCT = 163  # no program's, nor the recorder's


class SeccompTest(AttachTest):
    def setUp(self):
        super().setUp()
        self.calls = numbers(run(DRIVER, 'calls-of-recorder').stdout)
        self.assertGreater(len(self.calls), 40)

    def filtered(self, action, call):
        target = Target([program('filtered'), action, str(call)])
        for _ in range(1000):
            with open(f'/proc/{target.pid}/status') as status:
                if 'Seccomp:\t2' in status.read():
                    return target
            time.sleep(0.01)
        self.fail('no filter was installed')

    def refused(self, target, sentence):
        result = self.nodeleak('attach', '--duration=1ms', target.pid, status=2)
        if 'cannot be read' in result.stderr:
            self.skipTest('no right to read filters, or a kernel that does not tell')
        self.assertIn(f'cannot attach to {target.pid}: ', result.stderr)
        self.assertRegex(result.stderr, sentence)
        self.assertEqual([], [name for name in os.listdir(self.folder) if name.endswith('.rec')])
        self.expect_unharmed(target)

    def expect_unharmed(self, target):
        target.process.terminate()
        self.assertEqual(-signal.SIGTERM, target.end()[0])

    def test_a_filter_that_refuses(self):
        with self.filtered('errno', self.calls['memfd_create']) as target:
            self.refused(target, 'memfd_create: Operation not permitted.*seccomp filter')

    def test_a_filter_that_refuses_what_the_recorder_cannot_do_without(self):
        # And those by which the recorder comes to its end; glibc would end the process that may not call rseq any more.
        for name in ('recvmsg', 'poll', 'fcntl', 'fstat', 'close', 'gettid', 'getpid', 'exit', 'rseq'):
            with self.subTest(call=name), self.filtered('errno', self.calls[name]) as target:
                self.refused(target, f'a seccomp filter that refuses {name}, which the recorder needs')
        with self.filtered('errno', self.calls['madvise']) as target:
            before = target.descriptors()
            result = self.nodeleak('attach', '--duration=1ms', target.pid, status=2)
            self.assertIn('madvise is refused', result.stderr)
            self.assertEqual(before, target.descriptors())
            self.expect_unharmed(target)
        # Where filters cannot be read, the recorder says so.
        if os.geteuid() == 0 and shutil.which('setpriv') is not None:
            with self.filtered('errno', self.calls['recvmsg']) as target:
                result = run('setpriv', '--bounding-set=-sys_admin', NODELEAK, 'attach', '--duration=1ms', '--trust-seccomp',
                             str(target.pid), cwd=self.folder)
                self.assertEqual(2, result.returncode, result.stderr)
                self.assertIn('it may not receive the recording by recvmsg (a seccomp filter?)', result.stderr)
                self.expect_unharmed(target)

    def test_a_filter_that_ends_the_process_for_any_call_of_the_recorder(self):
        for name, number in self.calls.items():
            action = 'trap' if number % 3 == 0 else 'kill'
            with self.subTest(call=name), self.filtered(action, number) as target:
                self.refused(target, f'a seccomp filter that would end it for {name},')

    def test_a_filter_that_may_not_be_read(self):
        if os.geteuid() != 0 or shutil.which('setpriv') is None:
            self.skipTest('no right to give up a capability')
        may_not = ['setpriv', '--bounding-set=-sys_admin']

        def attach(target, *before, options=()):
            return run(*before, NODELEAK, 'attach', '--duration=1ms', *options, str(target.pid), cwd=self.folder)
        with self.filtered('kill', ACCT) as target:
            result = attach(target, *may_not)
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertRegex(result.stderr, 'a seccomp filter that cannot be read.*--trust-seccomp')
            self.assertEqual(0, attach(target, *may_not, options=['--trust-seccomp']).returncode)
            # Under the same filters, as in one container: what they do is tried out by nodeleak itself.
            self.assertEqual(0, attach(target, program('filtered'), 'kill', str(ACCT)).returncode)
            self.expect_unharmed(target)
        memfd_create = str(self.calls['memfd_create'])
        with self.filtered('kill', memfd_create) as target:
            result = attach(target, program('filtered'), 'kill', memfd_create)
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertIn('would end it for memfd_create', result.stderr)
            self.expect_unharmed(target)

    def test_a_filter_of_our_own_that_refuses_to_hand_over_the_file(self):
        # As in docker exec, by the default profile: the recorder opens the file in nodeleak's own table.
        refused = [program('filtered'), 'errno', '438']
        with Target([program('threads')]) as target:
            before = target.descriptors()
            result = run(*refused, NODELEAK, 'attach', '--duration=300ms', '--report=r.json', str(target.pid), cwd=self.folder)
            self.assertEqual(0, result.returncode, result.stderr)
            with open(self.path('r.json')) as file:
                report = json.load(file)
            self.assertEqual('detached', report['process']['ended'])
            self.assertGreater(report['totals']['allocations'], 100)
            self.assertEqual(before, target.descriptors())
            # It notices the end of a tracer that was killed, stops, and can be attached to again.
            for point in ('file sent', 'recording', 'patched'):
                killed = run(*refused, DRIVER, 'die', str(target.pid), SHIM, self.path('cycles.rec'), point)
                self.assertEqual(-signal.SIGKILL, killed.returncode, killed.stderr)
                self.assertEqual(0, run(*refused, DRIVER, 'cycles', str(target.pid), SHIM, self.path('cycles.rec'), '1', '50',
                                        '0').returncode)
            self.assertEqual(before, target.descriptors())
            self.expect_clean_text(target)
            self.assertEqual(0, target.end()[0])

    def test_a_filter_of_our_own_and_another_pid_namespace(self):
        if run('unshare', '--pid', '--fork', 'true').returncode != 0:
            self.skipTest('no right to make namespaces')
        with Target(['unshare', '--pid', '--fork', '--kill-child', program('threads')]) as target:
            with open(f'/proc/{target.pid}/task/{target.pid}/children') as children:
                target.pid = int(children.read())
            result = run(program('filtered'), 'errno', '438', NODELEAK, 'attach', '--duration=1ms', str(target.pid),
                         cwd=self.folder)
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertRegex(result.stderr, 'cannot attach to .*refuses pidfd_getfd to nodeleak.*SYS_PTRACE')
            self.assertEqual([], [name for name in os.listdir(self.folder) if name.endswith('.rec')])
            self.cycles(target, 1)
            self.expect_clean_text(target)
            self.assertEqual(0, target.end()[0])

    def expect_names(self, report):
        groups = [g for g in report['groups'] if g['kind'] == 'array-buffer' and (g['site'] or {}).get('function') == 'keepHere']
        self.assertEqual(1, len(groups), report['groups'][:3])
        self.assertEqual([], [c for c in report['capabilities'] if c['name'] != 'allocations' and c['state'] != 'full'])
        self.assertIn('keepHere', [frame['function'] for frame in groups[0]['stacks'][0]['frames']])

    def test_a_filter_that_refuses_to_read_memory(self):
        # As Docker's and containerd's default profiles did for years.
        program_file = self.program_file('keep.js', """
            const kept = globalThis.kept = [];
            function keepHere() { kept.push(Buffer.alloc(50021)); }
            setInterval(keepHere, 5);
            console.log('ready');
            process.stdin.on('end', () => process.exit()).resume();
        """)
        refused = [program('filtered'), 'errno', str(self.calls['process_vm_readv'])]
        for major, node in NODES.items():
            with self.subTest(node=major, how='attached'), Target([*refused, node, program_file]) as target:
                before = target.descriptors()
                report, _ = self.attach(target, duration='700ms')
                self.expect_names(report)
                self.assertEqual(before, target.descriptors())
                self.expect_clean_text(target)
                self.assertEqual(0, target.end()[0])
            report = self.path('prefixed.json')
            command = [NODELEAK, 'run', '-q', '-o', self.path('run.rec'), f'--report={report}', *refused, node, program_file]
            with self.subTest(node=major, how='prefixed'), Target(command) as target:
                time.sleep(0.7)
                self.assertEqual(0, target.end()[0])
                with open(report) as file:
                    self.expect_names(json.load(file))

    def recorded_under_a_filter_that_allows_just_that(self, command, kind):
        allowed = '+' + ','.join(map(str, self.calls.values()))
        with Target([program('filtered'), 'kill', allowed, *command]) as target:
            report, _ = self.attach(target, duration='1s')
            self.assertEqual('detached', report['process']['ended'])
            self.assertTrue([g for g in report['groups'] if g['kind'] == kind and g['liveBytes'] > 100_000])
            self.assertGreater(len(report['memory']['lines']), 5)
            self.nodeleak('attach', '--keep', '-q', '-o', 'kept.rec', target.pid)
            self.nodeleak('report', '-q', '--report=kept.json', 'kept.rec')
            self.nodeleak('detach', target.pid)
            self.expect_clean_text(target)
            self.assertEqual(0, target.end('end\n')[0])
            return report

    def test_a_filter_that_allows_only_what_the_recorder_does(self):
        source = 'globalThis.kept = []; setInterval(() => kept.push(Buffer.alloc(50021)), 5);' \
                 'console.log("ready"); process.stdin.on("end", () => process.exit()).resume()'
        for major, node in NODES.items():
            with self.subTest(node=major):
                report = self.recorded_under_a_filter_that_allows_just_that([node, '-e', source], 'array-buffer')
                self.assertGreater(report['totals']['majorGcs'], 0)
        self.recorded_under_a_filter_that_allows_just_that([program('threads')], 'native')


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
