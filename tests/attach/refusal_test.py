"""What cannot be attached to, each with a real process: one sentence, and the process is as it was.

refusal_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import unittest

from attach_support import AttachTest, DRIVER, GRACE, NODELEAK, Target, program, run


class RefusalTest(AttachTest):
    def refused(self, pid, sentence, **options):
        result = self.nodeleak('attach', '--duration=1ms', pid, status=2, **options)
        self.assertIn(f'cannot attach to {pid}: ', result.stderr)
        self.assertRegex(result.stderr, sentence)
        self.assertEqual([], [name for name in os.listdir(self.folder) if name.endswith('.rec')])

    def compile(self, compiler, source, *options):
        if shutil.which(compiler) is None:
            self.skipTest(f'no {compiler}')
        result = subprocess.run([compiler, '-x', 'c', '-', '-o', self.path('program'), *options], input=source, text=True,
                                capture_output=True)
        if result.returncode != 0:
            self.skipTest(result.stderr)
        return self.path('program')

    READY = '#include <stdio.h>\n#include <unistd.h>\nint main() { puts("ready"); fflush(stdout); pause(); }'

    def test_no_such_process(self):
        process = subprocess.Popen(['true'])
        process.wait()
        self.refused(process.pid, 'there is no such process')
        self.assertIn(f'cannot detach from {process.pid}: there is no such process',
                      self.nodeleak('detach', process.pid, status=2).stderr)
        self.assertIn('takes one process id', self.nodeleak('attach', 'node', status=2).stderr)

    def test_a_thread(self):
        with Target([program('threads')]) as target:
            thread = max(map(int, os.listdir(f'/proc/{target.pid}/task')))
            if thread != target.pid and os.path.exists(f'/proc/{thread}/status'):
                result = run(NODELEAK, 'attach', '--duration=1ms', str(thread), cwd=self.folder)
                self.assertRegex(result.stderr, f'thread of process {target.pid}|no such process')

    def test_a_statically_linked_program(self):
        with Target([self.compile('gcc', self.READY, '-static')]) as target:
            self.refused(target.pid, 'statically linked')

    def test_a_program_of_musl(self):
        with Target([self.compile('musl-gcc', self.READY)]) as target:
            self.refused(target.pid, 'musl')

    def test_a_32_bit_program(self):
        program = self.compile('gcc', self.READY, '-m32')
        try:
            target = Target([program])
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            self.skipTest('this kernel runs no 32-bit programs')
        with target:
            self.refused(target.pid, '32-bit')

    def test_a_program_under_strict_seccomp(self):
        source = self.READY.replace('pause();', 'prctl(PR_SET_SECCOMP, 1); char c; read(0, &c, 1);')
        with Target([self.compile('gcc', '#include <sys/prctl.h>\n' + source)]) as target:
            for _ in range(100):
                with open(f'/proc/{target.pid}/status') as status:
                    if 'Seccomp:\t1' in status.read():
                        break
                time.sleep(0.01)
            self.refused(target.pid, 'strict seccomp')

    def refused_as(self, target, sentence, *wrapper):
        os.chmod(self.folder, 0o777)
        result = run(*wrapper, NODELEAK, 'attach', '--duration=1ms', str(target.pid), cwd=self.folder)
        self.assertEqual(2, result.returncode, result.stderr)
        self.assertRegex(result.stderr, f'cannot attach to {target.pid}: .*{sentence}')
        self.assertEqual(0, target.end('x')[0])

    def test_without_the_capability(self):
        if os.geteuid() != 0 or shutil.which('setpriv') is None:
            self.skipTest('no right to give up a capability')
        with Target([program('sleeps'), 'poll']) as target:
            self.refused_as(target, 'even to root: is CAP_SYS_PTRACE missing', 'setpriv', '--bounding-set=-sys_ptrace')

    def test_a_process_with_more_rights(self):
        if os.geteuid() != 0 or shutil.which('setpriv') is None:
            self.skipTest('only root can become two users')
        nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
        more = nobody + ['--inh-caps=+kill', '--ambient-caps=+kill', program('sleeps'), 'poll']
        # What Yama says decides the sentence; on a kernel without it, its file is a stand-in.
        for scope, sentence in ((None, 'it has more rights than nodeleak'), ('1', 'ptrace_scope is 1.*run nodeleak as root'),
                                ('3', 'until it is booted again')):
            if scope is None and os.path.exists('/proc/sys/kernel/yama/ptrace_scope'):
                continue
            stand_in = 'mount -t tmpfs none /proc/sys/kernel && mkdir /proc/sys/kernel/yama && ' \
                       f'echo {scope} > /proc/sys/kernel/yama/ptrace_scope && exec "$@"'
            inside = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', stand_in, 'sh'] if scope else []
            if inside and run(*inside, 'true').returncode != 0:
                self.skipTest('no right to mount')
            with self.subTest(scope=scope), Target(more) as target:
                self.refused_as(target, sentence, *inside, *nobody)

    def test_a_stopped_process(self):
        with Target([program('sleeps'), 'poll']) as target:
            target.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, target.pid, os.WSTOPPED | os.WNOWAIT)
            self.refused(target.pid, 'stopped.*kill -CONT')
            target.process.send_signal(signal.SIGCONT)
            self.assertEqual(0, target.end('x')[0])

    def freezer(self):
        """A control group's folder, and the file that freezes it with the words for yes and no."""
        for mount, name, words in (('/sys/fs/cgroup/freezer', 'freezer.state', ('FROZEN', 'THAWED')),
                                   ('/sys/fs/cgroup', 'cgroup.freeze', ('1', '0'))):
            folder = f'{mount}/nodeleak-test-{os.getpid()}'
            try:
                os.mkdir(folder)
            except OSError:
                continue
            self.addCleanup(os.rmdir, folder)
            if os.path.exists(f'{folder}/{name}'):
                return folder, name, words
        self.skipTest('no right to make a control group that can be frozen')

    def test_a_frozen_process(self):
        folder, name, (frozen, thawed) = self.freezer()

        def write(file, text):
            with open(f'{folder}/{file}', 'w') as out:
                out.write(text)
        with Target([program('sleeps'), 'poll']) as target:
            write('cgroup.procs', str(target.pid))
            write(name, frozen)
            told, word = (name, frozen) if name == 'freezer.state' else ('cgroup.events', 'frozen 1')
            for _ in range(GRACE * 100):  # a thread that is in the kernel is frozen when it comes out
                with open(f'{folder}/{told}') as state:
                    if word in state.read():
                        break
                time.sleep(0.01)
            try:
                self.refused(target.pid, 'it did not stop: is it frozen')
            finally:
                write(name, thawed)
            self.assertEqual(0, target.end('x')[0])

    def test_a_traced_process(self):
        with Target([program('sleeps'), 'poll']) as target:
            with Target([DRIVER, 'hold', str(target.pid)]) as tracer:
                self.refused(target.pid, f'process {tracer.pid} .*tracing it')
                tracer.end()
            self.assertEqual(0, target.end('x')[0])

    def test_a_zombie(self):
        process = subprocess.Popen(['true'])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.refused(process.pid, 'zombie')
        process.wait()

    def test_a_kernel_thread(self):
        with open('/proc/2/status') as status:
            if 'kthreadd' not in status.read():
                self.skipTest('no kernel thread in sight')
        self.refused(2, 'thread of the kernel')

    def test_a_process_with_too_many_open_files(self):
        with Target([program('threads')]) as target:
            hard = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (len(target.descriptors()), hard))
            self.refused(target.pid, r'cannot create a memory file \(memfd_create: Too many open files\)$')
            resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (hard, hard))
            self.nodeleak('attach', '--duration=1ms', '--quiet', target.pid)
            self.assertEqual(0, target.end()[0])

    GROWS = '#include <poll.h>\n#include <stdio.h>\n#include <stdlib.h>\n' \
            'int main() { puts("ready"); fflush(stdout); struct pollfd in = {0, POLLIN, 0};' \
            'while (poll(&in, 1, 1) == 0) for (int i = 0; i < 200; i++) malloc(33); return 7; }'

    def limit_files(self, target, size):
        resource.prlimit(target.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def test_a_process_that_may_write_no_files(self):
        # SIGXFSZ would end it.
        with Target([self.compile('gcc', self.GROWS)]) as target:
            for size in (0, 100_000, (1 << 20) - 1):
                self.limit_files(target, size)
                self.refused(target.pid, f'it may write no file larger than {size} bytes.*prlimit --pid {target.pid} --fsize=')
                self.assertNotIn('memfd', target.mappings())
            self.limit_files(target, resource.RLIM_INFINITY)
            ours = ['bash', '-c', 'ulimit -f 100; exec "$@"', 'bash', NODELEAK, 'attach', '--duration=1ms', str(target.pid)]
            result = run(*ours, cwd=self.folder)
            self.assertEqual(2, result.returncode)
            self.assertRegex(result.stderr, f'cannot attach to {target.pid}: nodeleak itself may write no file larger than 102400')
            self.assertNotIn('memfd', target.mappings())
            self.nodeleak('attach', '--duration=1ms', '--quiet', target.pid)
            self.assertEqual(7, target.end('x')[0])

    def test_a_process_that_may_write_small_files(self):
        full = 'the recording is full, by the program\'s limit for the size of files'
        with Target([self.compile('gcc', self.GROWS)]) as target:
            self.limit_files(target, 1 << 20)
            result = self.nodeleak('attach', '--duration=1s', target.pid)
            self.assertIn('may write no file larger than 1.0 MiB (ulimit -f)', result.stderr)
            self.assertIn(full, ' '.join(result.stdout.split()))
            # Lowered while it is recorded.
            self.limit_files(target, resource.RLIM_INFINITY)
            self.nodeleak('attach', '--keep', '--quiet', '--output=kept.rec', target.pid)
            self.limit_files(target, 0)
            kept = lambda: ' '.join(self.nodeleak('report', 'kept.rec').stdout.split())
            while full not in kept():
                time.sleep(0.05)
            self.nodeleak('detach', target.pid)
            self.assertIn(full, kept())
            self.assertEqual(7, target.end('x')[0])

    def test_a_process_that_ends_meanwhile(self):
        # At any moment of an attach: one sentence that says so, or a report of what there was.
        for delay_ms in range(0, 60, 4):
            process = subprocess.Popen(['sleep', f'{0.1 + delay_ms / 1000}'])
            time.sleep(0.1)
            result = run(NODELEAK, 'attach', '--quiet', '--gc=off', '--duration=10s', str(process.pid), cwd=self.folder)
            self.assertEqual(0, process.wait())
            if result.returncode != 0:
                self.assertRegex(result.stderr, r'^nodeleak: cannot attach to \d+: (it has ended meanwhile|it is ending|'
                                 r'it has ended already.*|there is no such process)$')

    def test_another_users_process(self):
        if os.geteuid() != 0:
            self.skipTest('only root can be somebody else')
        nobody = 65534
        with Target([program('sleeps'), 'poll']) as target:
            os.chmod(self.folder, 0o777)
            result = run(DRIVER, 'as', str(nobody), NODELEAK, 'attach', '--duration=1ms', str(target.pid), cwd=self.folder)
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertRegex(result.stderr, f'it runs as user 0 and nodeleak as user {nobody}')
            self.assertEqual(0, target.end('x')[0])

    def test_a_file_in_the_way(self):
        with open(self.path('taken.rec'), 'w') as file:
            file.write('not a recording')
        with Target([program('threads')]) as target:
            result = self.nodeleak('attach', '-o', 'taken.rec', target.pid, status=2)
            self.assertIn('is not a recording', result.stderr)
            self.assertEqual(0, target.end()[0])


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
