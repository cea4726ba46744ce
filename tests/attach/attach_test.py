"""Attaching to real processes: threaded C++ programs and each node of NODELEAK_TEST_NODES ("18=/path 20=/path ...").

attach_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import datetime
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
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

    def test_a_library_that_is_loaded_later_is_hooked_by_its_links(self):
        library = os.path.join(PROGRAMS, 'libattach_late_library.so')
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
            attach = subprocess.Popen([NODELEAK, 'attach', '-o', self.path('late.rec'), str(target.pid)], cwd=self.folder,
                                      text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while 'Ctrl-C ends it' not in attach.stderr.readline():
                self.assertIsNone(attach.poll())
            self.assertEqual('allocated', target.say('load\ngo'))
            give_up, functions = time.time() + GRACE, set()
            while 'late_allocate' not in functions:
                self.assertLess(time.time(), give_up, functions)
                self.assertEqual('allocated', target.say('go'))
                self.nodeleak('report', '-q', '--report=late.json', 'late.rec')
                with open(self.path('late.json')) as file:
                    functions = {frame['function'] for group in json.load(file)['groups'] for stack in group['stacks']
                                 for frame in stack['frames']}
            attach.send_signal(signal.SIGINT)
            attach.communicate(timeout=GRACE)
            self.assertEqual(0, attach.returncode)
            self.cycles(target, 2, on_ms=10, off_ms=0)  # its links are put back, too
            self.assertEqual('allocated', target.say('go'))
            self.assertEqual(0, target.end('end\n')[0])

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
        for call in ('nanosleep', 'poll', 'condition'):
            with self.subTest(call=call), Target([program('sleeps'), call]) as target:
                calls = self.driver('calls', target.pid, 15)
                self.assertEqual(0, calls['wrong'])
                status, said = target.end('x')
                self.assertEqual((0, 0, 0), (status, numbers(said)['failed'], numbers(said)['early']), said)

    def test_a_killed_tracer_leaves_a_healthy_process(self):
        for point in run(DRIVER, 'points').stdout.splitlines():
            environment = preload('take_near') if point == 'page mapped' else None
            with self.subTest(point=point), Target([program('threads')], env=environment) as target:
                # The recording that this one leaves is in the way of the next one's.
                killed = run(DRIVER, 'die', str(target.pid), SHIM, self.path('cycles.rec'), point)
                self.assertEqual(-signal.SIGKILL, killed.returncode, killed.stderr)
                self.cycles(target, 1)
                self.expect_clean_text(target)
                self.assertFalse([name for name in target.descriptors() if 'memfd' in name])
                status, said = target.end()
                self.assertEqual((0, 0), (status, numbers(said)['corrupt']), said)

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
        with Target([self.compile('gcc', self.READY, '-m32')]) as target:
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

    FILTERED = """
        #include <errno.h>
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/prctl.h>
        #include <unistd.h>
        /* FILTERED CALL ACTION [COMMAND...]: the command, or a program that waits for the end of its stdin. */
        int main(int count, char** arguments) {
          struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(arguments[1]), 0, 1),
            BPF_STMT(BPF_RET | BPF_K, !strcmp(arguments[2], "kill") ? SECCOMP_RET_KILL_PROCESS :
                                      !strcmp(arguments[2], "trap") ? SECCOMP_RET_TRAP : SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
          struct sock_fprog program = {4, code};
          if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
          if (count > 3) return execvp(arguments[3], arguments + 3);
          puts("ready");
          fflush(stdout);
          for (char byte; read(0, &byte, 1) > 0;) {}
          return 7;
        }"""
    MEMFD_CREATE, PROCESS_VM_READV, ACCT = '319', '310', '163'

    def test_a_program_under_a_seccomp_filter(self):
        filtered = self.compile('gcc', self.FILTERED)
        for call, action, sentence in ((self.MEMFD_CREATE, 'errno', 'memfd_create: Operation not permitted.*seccomp filter'),
                                       (self.MEMFD_CREATE, 'kill', 'a seccomp filter that would end it for memfd_create'),
                                       (self.PROCESS_VM_READV, 'trap', 'would end it for process_vm_readv')):
            with self.subTest(call=call, action=action), Target([filtered, call, action]) as target:
                if 'cannot be read' in run(NODELEAK, 'attach', '--duration=1ms', str(target.pid), cwd=self.folder).stderr:
                    self.skipTest('no right to read filters, or a kernel that does not tell')
                self.refused(target.pid, sentence)
                self.assertEqual(7, target.end()[0])

    def test_a_seccomp_filter_that_may_not_be_read(self):
        filtered = self.compile('gcc', self.FILTERED)
        if os.geteuid() != 0 or shutil.which('setpriv') is None:
            self.skipTest('no right to give up a capability')
        may_not = ['setpriv', '--bounding-set=-sys_admin']

        def attach(target, *before, options=()):
            return run(*before, NODELEAK, 'attach', '--duration=1ms', *options, str(target.pid), cwd=self.folder)
        with Target([filtered, self.ACCT, 'kill']) as target:
            result = attach(target, *may_not)
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertRegex(result.stderr, 'a seccomp filter that cannot be read.*--trust-seccomp')
            self.assertEqual(0, attach(target, *may_not, options=['--trust-seccomp']).returncode)
            # Under the same filters, as in one container: what they do is tried out by nodeleak itself.
            self.assertEqual(0, attach(target, filtered, self.ACCT, 'kill').returncode)
            self.assertEqual(7, target.end()[0])
        with Target([filtered, self.MEMFD_CREATE, 'kill']) as target:
            result = attach(target, filtered, self.MEMFD_CREATE, 'kill')
            self.assertEqual(2, result.returncode, result.stderr)
            self.assertIn('would end it for memfd_create', result.stderr)
            self.assertEqual(7, target.end()[0])

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


def on_each_node(test):
    def run_on_each(self):
        for major, node in NODES.items():
            with self.subTest(node=major):
                test(self, node)
    return run_on_each


class NodeTest(AttachTest):
    KEPT = 50021

    def kept_group(self, report):
        groups = [group for group in report['groups']
                  if group['kind'] == 'array-buffer' and (group['site'] or {}).get('function') == 'keepSome']
        self.assertEqual(1, len(groups), [group['site'] for group in report['groups']])
        return groups[0]

    @on_each_node
    def test_a_server_under_load(self, node):
        with Target([node, SERVER]) as target:
            result = self.cycles(target, 3)
            self.nodeleak('attach', '--keep', '-o', 'kept.rec', target.pid)
            for _ in range(2):
                self.assertEqual('kept', target.say('keep 20'))
            live = self.nodeleak('report', '-q', '--report=live.json', 'kept.rec')
            self.assertIn('no longer recorded', self.nodeleak('detach', target.pid).stderr)
            self.nodeleak('report', '-q', '--report=kept.json', 'kept.rec')
            with open(self.path('kept.json')) as file:
                report = json.load(file)
            group = self.kept_group(report)
            self.assertEqual((40, 40 * self.KEPT), (group['liveBlocks'], group['liveBytes']))
            self.assertEqual((SERVER, ['main']), (group['site']['file'], group['threads']))
            frames = [frame['function'] for frame in group['stacks'][0]['frames']]
            self.assertIn('keepSome', frames)
            self.assertTrue(frames[-1] in ('_start', '(anonymous)') or 'node' in frames[-1], frames)
            self.assertEqual({'blocks': 0, 'stacks': 0, 'bytes': 0}, report['totals']['lost'])
            # Again, into a new recording: it knows nothing of the old one.
            report, _ = self.attach(target, duration='200ms')
            self.assertFalse([g for g in report['groups'] if (g['site'] or {}).get('function') == 'keepSome' and g['liveBytes']])
            self.expect_clean_text(target)
            status, said = target.end('end\n')
            counts = json.loads(said)
            self.assertEqual((0, 0), (status, counts['bad']), said)
            self.assertGreater(min(counts['good'], counts['workers'], counts['programs']), 0, said)
            print(f'        {result["pauses"]} pauses: p50 {result["pause_p50"]} us, p95 {result["pause_p95"]} us, '
                  f'largest {result["pause_max"]} us; {said.strip()}', flush=True)

    def allocations_so_far(self, target):
        """How much the process has allocated, as the preloaded counter has it: read out of its memory."""
        library = os.path.join(PROGRAMS, 'libattach_counter.so')
        with open(f'/proc/{target.pid}/maps') as maps:
            base = min(int(line.split('-')[0], 16) for line in maps if library in line)
        offset = re.search(r'^(\w+) \w attach_counter_allocations$', run('nm', '-D', library).stdout, re.M)[1]
        with open(f'/proc/{target.pid}/mem', 'rb', 0) as memory:
            memory.seek(base + int(offset, 16))
            return struct.unpack('Q', memory.read(8))[0]

    @on_each_node
    def test_every_allocation_of_node_is_seen(self, node):
        # Workers, libraries inside of node, and an add-on that is loaded while it is recorded.
        addon = os.path.join(PROGRAMS, 'e2e_addon.node')
        source = """
            const zlib = require('zlib');
            const { Worker } = require('worker_threads');
            const work = 'const z = require("zlib"); for (let i = 0; i < 2000; i++) z.deflateSync("y" + i);';
            console.log('ready');
            process.stdin.once('data', async () => {
              await new Promise((ended) => new Worker(work, { eval: true }).on('exit', ended));
              process.dlopen({ exports: {} }, process.argv[1]);
              for (let i = 0; i < 5000; i++) { zlib.deflateSync('x'.repeat(200) + i); Buffer.allocUnsafeSlow(9000); }
              console.log('done');
              process.stdin.once('data', () => process.exit());
            });"""
        with Target([node, '-e', source, addon], env=preload('counter')) as target:
            # The hooks go in and out somewhere between two readings.
            early = self.allocations_so_far(target)
            self.nodeleak('attach', '--keep', '-q', '-o', 'counted.rec', target.pid)
            before = self.allocations_so_far(target)
            self.assertEqual('done', target.say('go'))
            after = self.allocations_so_far(target)
            self.nodeleak('detach', '--gc=off', target.pid)
            least, most = after - before, self.allocations_so_far(target) - early
            self.nodeleak('report', '-q', '--report=counted.json', 'counted.rec')
            with open(self.path('counted.json')) as file:
                totals = json.load(file)['totals']
            self.assertGreater(least, 50_000)
            self.assertGreater(totals['allocations'], least * 0.999, totals)
            self.assertLess(totals['allocations'], most * 1.001, totals)
            self.assertLess(most, least * 1.05)
            self.assertEqual({'blocks': 0, 'stacks': 0, 'bytes': 0}, totals['lost'])
            self.assertEqual(0, target.end('end\n')[0])

    @on_each_node
    def test_a_recorder_far_away_from_the_allocator_of_node(self, node):
        source = 'globalThis.kept = []; setInterval(() => kept.push(Buffer.alloc(50021)), 5);' \
                 'console.log("ready"); process.stdin.on("end", () => process.exit()).resume()'
        with Target([node, '-e', source], env=preload('take_near')) as target:
            self.cycles(target, 2, on_ms=20)
            report, _ = self.attach(target)
            self.assertTrue([g for g in report['groups'] if g['kind'] == 'array-buffer' and g['liveBlocks'] > 5])
            self.expect_clean_text(target)
            self.assertEqual(0, target.end()[0])

    @on_each_node
    def test_memory_from_before_is_called_that(self, node):
        mib = 1 << 20
        source = """
            globalThis.old = Array.from({ length: 150 }, () => Buffer.allocUnsafeSlow(1 << 20).fill(1));
            console.log('ready');
            process.stdin.once('data', () => {
              old.length = 100; gc(); setTimeout(() => { gc(); setTimeout(console.log, 50, 'freed'); }, 50);
              process.stdin.once('data', () => process.exit());
            });"""
        with Target([node, '--expose-gc', '-e', source]) as target:
            before = time.time()
            self.nodeleak('attach', '--keep', '-q', '-o', 'old.rec', target.pid)
            after = time.time()
            self.assertEqual('freed', target.say('go'))
            self.assertIn('A worker that has not been at its event loop since nodeleak attached',
                          ' '.join(self.nodeleak('gc', target.pid).stdout.split()))
            self.assertRegex(self.nodeleak('detach', target.pid).stderr,
                             r'stood still \d+ times?: p50 [\d.]+ ms, p95 [\d.]+ ms, longest [\d.]+ ms')
            self.nodeleak('report', '-q', '--report=old.json', 'old.rec')
            self.assertEqual(0, target.end('end\n')[0])
        with open(self.path('old.json')) as file:
            report = json.load(file)
        lines = {line['name']: line for line in report['memory']['lines']}
        older = lines['older mappings']
        # Where the kernel shows such a mapping as one with a piece of malloc's, it counts as malloc's.
        of_malloc = lines.get('malloc: older blocks', {'touchedBytes': 0})
        self.assertGreaterEqual(older['touchedBytes'] + of_malloc['touchedBytes'], 100 * mib, lines)
        self.assertRegex(older['detail'], r"before nodeleak attached.*by V8's own count: 1\d\d\.\d MiB")
        self.assertLess(lines['thread stacks']['touchedBytes'], 32 * mib, lines)
        self.assertEqual(0, lines['unexplained']['touchedBytes'], lines)
        self.assertGreaterEqual(report['totals']['unknownFrees'], 50)
        since = datetime.datetime.fromisoformat(report['process']['watchedSince'].replace('Z', '+00:00')).timestamp()
        self.assertTrue(before - 0.01 <= since <= after + 0.01, (before, since, after))
        self.assertLess(sum(group['liveBytes'] for group in report['groups']), 64 * mib)

    @on_each_node
    def test_array_buffers_from_before_are_listed(self, node):
        source = """
            const { Worker } = require('worker_threads');
            const kept = globalThis.kept = [];
            function keep(count, size) { for (let i = 0; i < count; i++) kept.push(new ArrayBuffer(size)); }
            keep(5, 61003);
            keep(3, 200003);
            const shared = new SharedArrayBuffer(90001);
            const work = `const kept = globalThis.kept = [];
              for (let i = 0; i < 4; i++) kept.push(new ArrayBuffer(70001));
              require('worker_threads').parentPort.on('message', (shared) => kept.push(shared)).postMessage('there');`;
            const worker = new Worker(work, { eval: true }).once('message', () => {
              worker.postMessage(shared);
              setInterval(() => new ArrayBuffer(8), 20);  // V8 ends its sweeps at such moments
              console.log('ready');
            });
            process.stdin.on('data', (line) => {
              if (String(line) === 'end\\n') process.exit();
              keep(2, 61003);
              kept.splice(5, 3);
              kept.push(new Uint8Array(kept[0]));  // the same one seen again
              gc();
              setTimeout(() => { gc(); console.log('freed'); }, 50);
            });"""

        def sizes(name):
            self.nodeleak('report', '-q', f'--report={name}', 'older.rec')
            with open(self.path(name)) as file:
                older = json.load(file)['olderArrayBuffers']
            listed = {row['bytes']: row['liveBlocks'] for row in older['sizes']}
            self.assertEqual(older['liveBytes'], sum(size * count for size, count in listed.items()))
            return {size: listed.get(size, 0) for size in (61003, 200003, 90001, 70001)}, older

        def wait_for(expected):
            give_up = time.time() + GRACE
            while (listed := tuple(sizes('live.json')[0][size] for size in (61003, 200003))) != expected:
                self.assertLess(time.time(), give_up, listed)
                time.sleep(0.05)
        with Target([node, '--expose-gc', '-e', source]) as target:
            self.nodeleak('attach', '--keep', '-q', '-o', 'older.rec', target.pid)
            wait_for((5, 3))
            self.assertEqual('freed', target.say('go'))
            wait_for((5, 0))  # by the frees alone
            # The worker sleeps all the time, and is known all the same.
            self.assertRegex(self.nodeleak('gc', target.pid).stdout, r'worker \S+ +collected')
            self.nodeleak('detach', target.pid)
            text = self.nodeleak('report', '--report=older.json', 'older.rec').stdout
            self.assertEqual(0, target.end('end\n')[0])
        expected = {61003: 5, 200003: 0, 90001: 1, 70001: 4}
        listed, older = sizes('older.json')
        self.assertEqual((expected, 'full', ''), (listed, older['state'], older['why']))
        self.assertGreaterEqual(older['freedBytes'], 3 * 200003)
        self.assertRegex(text, r'ArrayBuffers from before the attach: .* in \d+ blocks\n')
        self.assertRegex(text, r' 297.9 KiB +5  of 61,003 bytes\n')

    @on_each_node
    def test_nothing_is_left_growing(self, node):
        with Target([node, '-e', 'console.log("ready"); process.stdin.resume()']) as target:
            self.cycles(target, 2, on_ms=20)
            before = target.descriptors(), len(target.mappings().splitlines())
            self.cycles(target, 6, on_ms=20)
            self.assertEqual(before, (target.descriptors(), len(target.mappings().splitlines())))
            self.assertEqual(0, target.end()[0])

    @on_each_node
    def test_full_collection_at_the_end(self, node):
        source = 'globalThis.kept = []; setInterval(() => { new ArrayBuffer(300007); kept.push(1); }, 5);' \
                 'console.log("ready"); process.stdin.on("end", () => process.exit()).resume()'
        with Target([node, '-e', source]) as target:
            report, _ = self.attach(target, duration='500ms')
            garbage = [g for g in report['groups'] if g['kind'] == 'array-buffer' and g['allocatedBytes'] >= 300007]
            self.assertTrue(garbage)
            self.assertLessEqual(sum(group['liveBlocks'] for group in garbage), 1)
            self.assertGreater(report['totals']['majorGcs'], 0)
            self.assertEqual(0, target.end()[0])

    @on_each_node
    def test_the_live_line_names_what_grows(self, node):
        program = self.program_file('grow.js', """
            const kept = globalThis.kept = [];
            function growHere() { kept.push(Buffer.alloc(100003)); }
            setInterval(growHere, 5);
            console.log('ready');
        """)
        with Target([node, program]) as target:
            terminal, theirs = pty.openpty()
            attach = subprocess.Popen([NODELEAK, 'attach', '-o', self.path('line.rec'), str(target.pid)], stderr=theirs,
                                      stdout=subprocess.DEVNULL, env=dict(os.environ, TERM='xterm'))
            os.close(theirs)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 200, 0, 0))
            seen = b''
            while not re.search(rb'MiB in [0-9,]+ blocks outstanding.*growing: growHere .*grow\.js:3 \+', seen):
                self.assertTrue(select.select([terminal], [], [], GRACE)[0], seen[-500:])
                seen += os.read(terminal, 4096)
            attach.send_signal(signal.SIGINT)
            self.assertEqual(0, attach.wait(timeout=GRACE))
            os.close(terminal)
            self.expect_clean_text(target)

    @on_each_node
    def test_attached_and_prefixed_agree(self, node):
        program = self.program_file('agree.js', '''
            const kept = globalThis.kept = [];
            function buffers() { for (let i = 0; i < 7; i++) kept.push(Buffer.alloc(61001)); }
            function slow() { for (let i = 0; i < 5; i++) kept.push(Buffer.allocUnsafeSlow(70001)); }
            function wasm() { kept.push(new WebAssembly.Memory({ initial: 3, maximum: 5 })); }
            function work() { buffers(); [1].map(slow); wasm(); }
            console.log('ready');
            process.stdin.once('data', () => { work(); console.log('kept'); process.stdin.once('data', () => process.exit()); });
        ''')
        prefixed = Target([NODELEAK, 'run', '-q', '-o', self.path('prefixed.rec'), f'--report={self.path("prefixed.json")}',
                           node, program])
        with prefixed:
            self.assertEqual('kept', prefixed.say('go'))
            self.assertEqual(0, prefixed.end('end\n')[0])
        with Target([node, program]) as target:
            self.nodeleak('attach', '--keep', '-q', '-o', 'attached.rec', target.pid)
            self.assertEqual('kept', target.say('go'))
            self.nodeleak('detach', target.pid)
            self.nodeleak('report', '-q', '--report=attached.json', 'attached.rec')
            self.assertEqual(0, target.end('end\n')[0])

        def of(name):
            with open(self.path(name)) as file:
                groups = json.load(file)['groups']
            return {(g['kind'], g['site']['function']): (g['liveBytes'], g['liveBlocks'], g['site']['line'],
                                                         [[f['function'] for f in s['frames']] for s in g['stacks']])
                    for g in groups if g['kind'] in ('array-buffer', 'wasm-memory') and g['liveBytes'] and g['site'] and
                    g['site']['function'] in ('buffers', 'slow', 'wasm')}
        self.assertEqual(of('prefixed.json'), of('attached.json'))
        self.assertIn(('array-buffer', 'slow'), of('attached.json'))

    @on_each_node
    def test_a_process_started_with_the_prefix_is_read(self, node):
        command = [NODELEAK, 'run', '-q', '-o', self.path('prefixed.rec'), node, '-e',
                   'console.log("ready"); process.stdin.on("end", () => process.exit()).resume()']
        with Target(command) as target:
            with open(f'/proc/{target.pid}/task/{target.pid}/children') as children:
                # nodeleak's witness process is a child, too.
                child = next(int(pid) for pid in children.read().split()
                             if os.path.realpath(f'/proc/{pid}/exe') == os.path.realpath(node))
            result = self.nodeleak('attach', '--duration=1ms', child)
            self.assertIn('is recorded already', result.stderr)
            self.assertIn('still running', result.stdout)
            self.assertIn('was started under nodeleak', self.nodeleak('detach', child, status=2).stderr)
            self.assertEqual(0, target.end()[0])


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
