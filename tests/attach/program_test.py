"""Attaching to programs that are not node: threaded C++ ones, and their ends.

program_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest

from attach_support import AttachTest, DRIVER, GRACE, NODELEAK, PROGRAMS, SHIM, Target, numbers, preload, program, run


class ProgramTest(AttachTest):
    """Programs that are not node."""

    def test_a_threaded_program_is_recorded_and_goes_on(self):
        with Target([program('threads')]) as target:
            before = target.descriptors()
            self.cycles(target, 8, on_ms=30)
            report, _ = self.attach(target)
            self.assertEqual('detached', report['process']['ended'])
            self.assertGreater(report['totals']['allocations'], 10_000)
            functions = {frame['function'] for group in report['groups'] for stack in group['stacks']
                         for frame in stack['frames']}
            self.assertTrue(any('Churn' in function for function in functions), functions)
            self.expect_clean_text(target)
            self.assertEqual(before, target.descriptors())
            status, said = target.end()
            self.assertEqual((0, 0), (status, numbers(said)['corrupt']), said)

    def test_every_allocation_is_seen(self):
        with Target([program('threads'), 'counted']) as target:
            self.nodeleak('attach', '--keep', '-q', '-o', 'kept.rec', target.pid)
            said = target.say('go')
            allocated = int(said.split()[1])
            self.nodeleak('detach', target.pid)
            self.nodeleak('report', '-q', '--report=report.json', 'kept.rec')
            with open(self.path('report.json')) as file:
                totals = json.load(file)['totals']
            self.assertLess(abs(totals['allocations'] - allocated), allocated / 1000, (totals, said))
            self.assertEqual({'blocks': 0, 'stacks': 0, 'bytes': 0}, totals['lost'])
            self.assertEqual(0, target.end()[0])

    def jump_pages(self, target):
        return re.findall(r'^\S+ r-xp 00000000 00:00 0 *$', target.mappings(), re.M)

    def test_a_recorder_that_comes_to_lie_far_away(self):
        with Target([program('threads')], env=preload('take_near')) as target:
            self.cycles(target, 8, on_ms=30)
            pages = self.jump_pages(target)
            self.assertEqual(1, len(pages), target.mappings())
            report, _ = self.attach(target)
            self.assertGreater(report['totals']['allocations'], 10_000)
            self.assertEqual(pages, self.jump_pages(target))
            self.expect_clean_text(target)
            status, said = target.end()
            self.assertEqual((0, 0), (status, numbers(said)['corrupt']), said)

    def test_an_allocator_whose_beginning_cannot_be_replaced(self):
        with Target([program('threads'), 'counted'], env=preload('odd_allocator')) as target:
            self.cycles(target, 4, on_ms=10, off_ms=0)  # the links are put back, or the next would find none
            result = self.nodeleak('attach', '--keep', '-o', 'kept.rec', target.pid)
            self.assertRegex(result.stderr, r'malloc in \S+libattach_odd_allocator.so cannot be hooked at its beginning')
            allocated = int(target.say('go').split()[1])
            self.nodeleak('detach', target.pid)
            self.nodeleak('report', '-q', '--report=report.json', 'kept.rec')
            with open(self.path('report.json')) as file:
                report = json.load(file)
            self.assertLess(abs(report['totals']['allocations'] - allocated), allocated / 1000, report['totals'])
            allocations = [c for c in report['capabilities'] if c['name'] == 'allocations'][0]
            self.assertEqual('degraded', allocations['state'])
            self.assertEqual(0, target.end()[0])

    def hooked_when_it_is_loaded(self, library, keep):
        source = f"""if True:
            import ctypes, sys
            print("ready", flush=True)
            sys.stdin.readline()
            late = ctypes.CDLL({library!r}).late_allocate
            for line in sys.stdin:
                if line == "end\\n": break
                late(70007)
                print("allocated", flush=True)"""
        with Target([sys.executable, '-c', source], env=preload('odd_allocator')) as target:
            attach = subprocess.Popen([NODELEAK, 'attach', *keep, '-o', self.path('late.rec'), str(target.pid)], cwd=self.folder,
                                      text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while 'end' not in attach.stderr.readline():  # "Ctrl-C ends it", "end it with nodeleak detach"
                self.assertIsNone(attach.poll() or None)
            self.assertEqual('allocated', target.say('load\ngo'))
            give_up, functions = time.time() + GRACE, set()
            while 'late_allocate' not in functions:
                self.assertLess(time.time(), give_up, functions)
                self.assertEqual('allocated', target.say('go'))
                self.nodeleak('report', '-q', '--report=late.json', 'late.rec')
                with open(self.path('late.json')) as file:
                    functions = {frame['function'] for group in json.load(file)['groups'] for stack in group['stacks']
                                 for frame in stack['frames']}
            if keep:
                self.nodeleak('detach', target.pid)
            else:
                attach.send_signal(signal.SIGINT)
            attach.communicate(timeout=GRACE)
            self.assertEqual(0, attach.returncode)
            self.cycles(target, 2, on_ms=10, off_ms=0)  # its links are put back, too
            self.assertEqual('allocated', target.say('go'))
            self.assertEqual(0, target.end('end\n')[0])

    def test_a_library_that_is_loaded_later_is_hooked_by_its_links(self):
        # Bound at the first call, and when it is loaded: then the links lie in a page that is read-only by now.
        for name in ('late_library', 'late_library_bound'):
            for keep in ([], ['--keep']):
                with self.subTest(library=name, keep=keep):
                    self.hooked_when_it_is_loaded(os.path.join(PROGRAMS, f'libattach_{name}.so'), keep)

    def test_a_process_that_becomes_another_program(self):
        source = 'import os, sys; print("ready", flush=True); sys.stdin.readline(); os.execvp("cat", ["cat"])'
        with Target([sys.executable, '-c', source]) as target:
            json_file = self.path('exec.json')
            attach = subprocess.Popen([NODELEAK, 'attach', f'--report={json_file}', str(target.pid)], cwd=self.folder, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while 'Ctrl-C ends it' not in attach.stderr.readline():
                self.assertIsNone(attach.poll())
            target.process.stdin.write('go\n')
            target.process.stdin.flush()
            report = attach.communicate(timeout=GRACE)[0]
            self.assertEqual(0, attach.returncode)
            self.assertIn('it has become another program since', ' '.join(report.split()))
            with open(json_file) as file:
                self.assertEqual('exec', json.load(file)['process']['ended'])
            self.assertEqual((0, 'still\n'), target.end('still\n'))

    def test_registers_of_a_borrowed_thread_are_kept(self):
        with Target([program('registers')]) as target:
            self.assertEqual({'calls': 15, 'refused': 0, 'wrong': 0}, self.driver('calls', target.pid, 15))
            status, said = target.end('x')
            self.assertEqual((0, 0), (status, numbers(said)['wrong']), said)

    def test_an_interrupted_sleep_goes_on(self):
        for call in ('nanosleep', 'poll', 'condition', 'sigsuspend', 'wait', 'accept', 'recv', 'recvmsg'):
            with self.subTest(call=call), Target([program('sleeps'), call]) as target:
                calls = self.driver('calls', target.pid, 15)
                self.assertEqual((0, 0), (calls['wrong'], calls['refused']))
                status, said = target.end('x')
                self.assertEqual((0, 0, 0), (status, numbers(said)['failed'], numbers(said)['early']), said)

    def test_a_killed_tracer_leaves_a_healthy_process(self):
        for point in run(DRIVER, 'points').stdout.splitlines():
            environment = preload('take_near') if point == 'page mapped' else None
            with self.subTest(point=point), Target([program('threads')], env=environment) as target:
                # The recording that this one leaves is in the way of the next one's.
                if point == 'file made' and os.path.exists(self.path('cycles.rec')):
                    os.unlink(self.path('cycles.rec'))
                killed = run(DRIVER, 'die', str(target.pid), SHIM, self.path('cycles.rec'), point)
                self.assertEqual(-signal.SIGKILL, killed.returncode, killed.stderr)
                if point == 'file made':  # it has its name when it says what it is, or not at all
                    self.assertFalse(os.path.exists(self.path('cycles.rec')))
                self.cycles(target, 1)
                self.expect_clean_text(target)
                self.assertFalse([name for name in target.descriptors() if 'memfd' in name])
                status, said = target.end()
                self.assertEqual((0, 0), (status, numbers(said)['corrupt']), said)

    def test_what_a_call_left_on_a_stack_is_no_call_that_still_runs(self):
        with Target([program('deep')]) as target:
            self.cycles(target, 1, on_ms=10, off_ms=0)
            self.assertEqual('deeper', target.say('go'))
            killed = run(DRIVER, 'die', str(target.pid), SHIM, self.path('cycles.rec'), 'before registers')
            self.assertEqual(-signal.SIGKILL, killed.returncode, killed.stderr)
            self.cycles(target, 1, on_ms=10, off_ms=0)
            self.expect_clean_text(target)
            self.assertEqual(0, target.end()[0])

    def test_what_a_killed_tracer_left_can_be_taken_back_by_hand(self):
        with Target([program('threads')]) as target:
            run(DRIVER, 'die', str(target.pid), SHIM, self.path('killed.rec'), 'patched')
            self.assertRegex(self.nodeleak('detach', target.pid).stderr, 'cleaned up|no longer recorded')
            self.expect_clean_text(target)
            self.assertIn('nothing of nodeleak', self.nodeleak('detach', target.pid, status=2).stderr)
            # What it had recorded until then can be read.
            self.nodeleak('report', '-q', '--report=killed.json', 'killed.rec')
            self.assertEqual(0, target.end()[0])

    def test_a_process_in_another_namespace(self):
        root = self.path('root')
        binds = ['lib', 'lib64', 'usr', 'dev']
        for name in binds + ['proc', 'programs']:
            os.makedirs(os.path.join(root, name))
        mounts = [f'mount --bind /{name} {root}/{name}' for name in binds if os.path.isdir('/' + name)]
        script = ' && '.join(mounts + [f'mount --bind {PROGRAMS} {root}/programs', f'mount -t proc proc {root}/proc',
                                       f'exec chroot {root} /programs/attach_threads'])
        command = ['unshare', '--mount', '--pid', '--fork', '--propagation', 'private', 'sh', '-c', script]
        if run('unshare', '--mount', '--pid', '--fork', 'true').returncode != 0:
            self.skipTest('no right to make namespaces')
        with Target(command) as target:
            outer = target.pid
            with open(f'/proc/{outer}/task/{outer}/children') as children:
                target.pid = int(children.read())
            report, _ = self.attach(target)
            self.assertEqual(target.pid, report['process']['pid'])
            self.assertGreater(report['totals']['allocations'], 10_000)
            self.assertEqual(0, target.end()[0])


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
