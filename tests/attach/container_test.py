"""Attaching from outside to node in a container of its own: mount, pid and user namespaces, another user, a root that
cannot be written to and has no /tmp, and none of our files.

container_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from attach_support import AttachTest, GRACE, NODELEAK, NODES, Target, run

USER = 12345
SCRIPT = """
    const kept = globalThis.kept = [];
    function keepHere() { kept.push(Buffer.alloc(50021)); }
    setInterval(keepHere, 5);
    console.log('ready');
    process.stdin.on('end', () => process.exit()).resume();
"""


class ContainerTest(AttachTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or run('unshare', '--mount', '--pid', '--fork', 'true').returncode != 0:
            self.skipTest('no right to make namespaces')
        os.chmod(self.folder, 0o755)

    def command(self, node, *before):
        """What starts node with nothing around but its libraries."""
        root = self.path('root')
        shutil.rmtree(root, ignore_errors=True)
        files = {'/app/node': node}
        files.update((path, os.path.realpath(path)) for path in re.findall(r'(/\S+) \(0x', run('ldd', node).stdout))
        os.makedirs(root + '/proc')
        for inside, outside in files.items():
            os.makedirs(os.path.dirname(root + inside), exist_ok=True)
            shutil.copy(outside, root + inside)
        with open(root + '/app/keep.js', 'w') as file:
            file.write(SCRIPT)
        mounts = [f'mount --bind {root} {root}', f'mount -t proc proc {root}/proc', f'mount -o remount,bind,ro {root}']
        user = f'--userspec={USER}:{USER}' if before == ('unshare',) else ''
        script = ' && '.join(mounts + [f'exec chroot {user} {root} /app/node /app/keep.js'])
        return [*before, '--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private', 'sh', '-c', script]

    def started(self, command):
        target = Target(command)
        self.addCleanup(target.__exit__)
        with open(f'/proc/{target.pid}/task/{target.pid}/children') as children:
            target.pid = int(children.read())
        with open(f'/proc/{target.pid}/status') as status:
            text = status.read()
        self.assertRegex(text, rf'NSpid:\t{target.pid}\t1\n')
        self.assertRegex(text, rf'Uid:\t{USER}\t')
        return target

    def expect_everything(self, report):
        groups = [g for g in report['groups'] if g['kind'] == 'array-buffer' and (g['site'] or {}).get('function') == 'keepHere']
        self.assertEqual(1, len(groups), [(g['kind'], g['site']) for g in report['groups'][:5]])
        self.assertEqual('/app/keep.js', groups[0]['site']['file'])
        self.assertEqual([], [c for c in report['capabilities'] if c['state'] != 'full'])
        frames = groups[0]['stacks'][0]['frames']
        self.assertEqual([], [frame for frame in frames if not frame['function']])

    def recorded(self, command):
        target = self.started(command)
        before = target.descriptors()
        report, result = self.attach(target, '--gc=end', duration='700ms')
        self.assertEqual(target.pid, report['process']['pid'])
        self.assertGreater(report['totals']['majorGcs'], 0)
        self.expect_everything(report)
        self.nodeleak('attach', '--keep', '-q', '-o', 'kept.rec', target.pid)
        time.sleep(0.2)
        self.nodeleak('detach', target.pid)
        self.nodeleak('report', '-q', '--report=kept.json', 'kept.rec')
        with open(self.path('kept.json')) as file:
            self.expect_everything(json.load(file))
        self.assertEqual(before, target.descriptors())
        self.expect_clean_text(target)
        self.assertEqual(0, target.end()[0])

    def test_a_container(self):
        for major, node in NODES.items():
            with self.subTest(node=major):
                self.recorded(self.command(node, 'unshare'))

    def test_a_container_of_a_user_namespace(self):
        before = ['setpriv', f'--reuid={USER}', f'--regid={USER}', '--clear-groups', 'unshare', '--user', '--map-root-user']
        if shutil.which('setpriv') is None or run(*before, 'true').returncode != 0:
            self.skipTest('users may make no namespaces')
        for major, node in NODES.items():
            with self.subTest(node=major):
                self.recorded(self.command(node, *before))

    def test_a_container_that_ends_while_it_is_recorded(self):
        target = self.started(self.command(next(iter(NODES.values())), 'unshare'))
        attach = subprocess.Popen([NODELEAK, 'attach', '--report=ended.json', str(target.pid)], cwd=self.folder, text=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while 'Ctrl-C ends it' not in attach.stderr.readline():
            self.assertIsNone(attach.poll())
        time.sleep(0.5)
        os.kill(target.pid, signal.SIGKILL)
        attach.communicate(timeout=GRACE)
        self.assertEqual(0, attach.returncode)
        with open(self.path('ended.json')) as file:
            report = json.load(file)
        self.assertEqual([('array-buffer', 'keepHere')], [(g['kind'], g['site']['function']) for g in report['groups'] if
                                                          g['site'] and g['liveBytes'] > 1_000_000])


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
