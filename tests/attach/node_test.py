"""Attaching to each node of NODELEAK_TEST_NODES ("18=/path 20=/path ...").

node_test.py NODELEAK SHIM FOLDER_OF_PROGRAMS [unittest arguments]
"""
import datetime
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

from attach_support import AttachTest, GRACE, NODELEAK, NODES, PROGRAMS, SERVER, Target, preload, program, run


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

    def counted_so_far(self, target):
        """Allocations and frees of the process, as the preloaded counter has them: read out of its memory."""
        library = os.path.join(PROGRAMS, 'libattach_counter.so')
        with open(f'/proc/{target.pid}/maps') as maps:
            base = min(int(line.split('-')[0], 16) for line in maps if library in line)
        symbols = run('nm', '-D', library).stdout

        def counter(name):
            offset = re.search(rf'^(\w+) \w attach_counter_{name}$', symbols, re.M)[1]
            with open(f'/proc/{target.pid}/mem', 'rb', 0) as memory:
                memory.seek(base + int(offset, 16))
                return struct.unpack('Q', memory.read(8))[0]
        return counter('allocations'), counter('frees')

    @on_each_node
    def test_every_allocation_and_free_of_node_is_seen(self, node):
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
            early = self.counted_so_far(target)
            self.nodeleak('attach', '--keep', '-q', '-o', 'counted.rec', target.pid)
            before = self.counted_so_far(target)
            self.assertEqual('done', target.say('go'))
            after = self.counted_so_far(target)
            self.nodeleak('detach', '--gc=off', target.pid)
            late = self.counted_so_far(target)
            self.nodeleak('report', '-q', '--report=counted.json', 'counted.rec')
            with open(self.path('counted.json')) as file:
                totals = json.load(file)['totals']
            frees = totals['allocations'] - totals['liveBlocks'] + totals['unknownFrees']
            for i, recorded in enumerate((totals['allocations'], frees)):
                least, most = after[i] - before[i], late[i] - early[i]
                self.assertGreater(least, 50_000)
                self.assertGreater(recorded, least * 0.999, totals)
                self.assertLess(recorded, most * 1.001, totals)
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
            self.assertIn('A worker that has been in native code ever since nodeleak attached',
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
    def test_a_failed_realloc_frees_no_array_buffer_from_before(self, node):
        addon = os.path.join(PROGRAMS, 'e2e_addon.node')
        source = """
            const addon = { exports: {} };
            process.dlopen(addon, process.argv[1]);
            const kept = globalThis.kept = new Uint8Array(new ArrayBuffer(61003));
            setInterval(() => new ArrayBuffer(8), 20);
            console.log('ready');
            process.stdin.on('data', (line) => {
              if (String(line) === 'end\\n') process.exit();
              console.log(addon.exports.failToGrow(kept));
            });"""

        def blocks():
            self.nodeleak('report', '-q', '--report=older.json', 'older.rec')
            with open(self.path('older.json')) as file:
                rows = json.load(file)['olderArrayBuffers']['sizes']
            return sum(row['liveBlocks'] for row in rows if row['bytes'] == 61003)
        with Target([node, '-e', source, addon]) as target:
            self.nodeleak('attach', '--keep', '-q', '-o', 'older.rec', target.pid)
            give_up = time.time() + GRACE
            while blocks() != 1:
                self.assertLess(time.time(), give_up)
                time.sleep(0.05)
            self.assertEqual('1', target.say('go'))
            self.assertEqual(1, blocks())
            self.nodeleak('detach', '--gc=off', target.pid)
            self.assertEqual(0, target.end('end\n')[0])

    @on_each_node
    def test_nothing_is_left_growing(self, node):
        with Target([node, '-e', 'console.log("ready"); process.stdin.resume()']) as target:
            self.cycles(target, 2, on_ms=20)

            def ours():
                return target.descriptors(), re.findall(r'^\S+ (....) \S+ \S+ \S+ +(/memfd:.*|.*\.rec)', target.mappings(), re.M)
            before = ours()
            self.assertTrue(before[1], target.mappings())
            # V8 and malloc map a piece now and then: what each cycle leaves is there after every round.
            counts = [len(target.mappings().splitlines())]
            for _ in range(4):
                self.cycles(target, 3, on_ms=20)
                counts.append(len(target.mappings().splitlines()))
            self.assertFalse(all(a < b for a, b in zip(counts, counts[1:])), counts)
            self.assertEqual(before, ours())
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
    def test_full_collection_of_a_main_thread_that_never_sleeps(self, node):
        # In its loop, and in JavaScript that does not yield.
        for work in ('setImmediate(function again() { waste(); setImmediate(again); })',
                     'for (const end = Date.now() + 4000; Date.now() < end;) waste()'):
            program_file = self.program_file('busy.js', f"""
                const kept = globalThis.kept = [];
                function waste() {{ new ArrayBuffer(300007); kept.push(1); }}
                console.log('ready');
                process.stdin.once('data', () => {{
                  process.stdin.on('end', () => process.exit()).resume();
                  require('fs').writeSync(1, 'busy\\n');
                  {work};
                }});
            """)
            with self.subTest(work=work), Target([node, program_file]) as target:
                self.nodeleak('attach', '--keep', '-q', '-o', 'busy.rec', target.pid)
                self.assertEqual('busy', target.say('go'))
                time.sleep(0.3)
                self.nodeleak('detach', target.pid)
                text = self.nodeleak('report', '--report=busy.json', 'busy.rec').stdout
                self.assertNotIn('no full GC', text)
                with open(self.path('busy.json')) as file:
                    garbage = [g for g in json.load(file)['groups'] if g['kind'] == 'array-buffer' and
                               (g['site'] or {}).get('function') == 'waste']
                self.assertGreater(sum(g['allocations'] for g in garbage), 10)
                self.assertLessEqual(sum(g['liveBlocks'] for g in garbage), 5)
                self.expect_clean_text(target)
                self.assertEqual(0, target.end()[0])

    @on_each_node
    def test_finalizers_have_their_turns_at_the_end(self, node):
        addon = os.path.join(PROGRAMS, 'e2e_addon.node')
        source = """
            const addon = { exports: {} };
            process.dlopen(addon, process.argv[1]);
            setInterval(() => addon.exports.external(50021), 5);
            console.log('ready');
            process.stdin.on('end', () => process.exit()).resume();"""
        with Target([node, '-e', source, addon]) as target:
            for _ in range(2):
                report, _ = self.attach(target, duration='500ms')
                blocks = [(g['allocations'], g['liveBlocks']) for g in report['groups'] if g['kind'] == 'addon']
                self.assertGreater(min(blocks)[0], 10, blocks)
                self.assertLessEqual(max(live for _, live in blocks), 2, blocks)  # those of between the collections
            self.expect_clean_text(target)
            self.assertEqual(0, target.end()[0])

    @on_each_node
    def test_workers_that_wait_by_atomics_are_met(self, node):
        # As those of a pool that never comes to its event loops while there is work.
        program_file = self.program_file('wait.js', """
            const { Worker, isMainThread, workerData } = require('worker_threads');
            const kept = globalThis.kept = [];
            function keepHere() { kept.push(Buffer.alloc(50021)); }
            function wasteHere() { Buffer.alloc(61003); }
            if (isMainThread) {
              const shared = new Int32Array(new SharedArrayBuffer(8));
              const worker = new Worker(__filename, { workerData: shared });
              worker.on('exit', () => { console.log(shared[1] === 0 ? 'right' : 'wrong'); process.exit(); });
              setInterval(() => {}, 1000);
              setTimeout(console.log, 200, 'ready');
              process.stdin.on('end', () => { Atomics.store(shared, 0, 1); Atomics.notify(shared, 0); }).resume();
            } else {
              for (;;) {
                const begin = performance.now();
                const woken = Atomics.wait(workerData, 0, 0, 20) !== 'timed-out';
                if (woken) break;
                if (performance.now() - begin < 19) ++workerData[1];
                keepHere();
                wasteHere();
              }
            }
        """)

        def blocks(report):
            return {function: sum(g['liveBlocks'] for g in report['groups'] if g['kind'] == 'array-buffer' and
                                  (g['site'] or {}).get('function') == function) for function in ('keepHere', 'wasteHere')}
        with Target([node, program_file]) as target:
            report, _ = self.attach(target, duration='1s')
            self.assertGreater(blocks(report)['keepHere'], 20)
            # As much is wasted as is kept; only what came between the worker's collection and the freeze is there.
            self.assertLess(blocks(report)['wasteHere'], blocks(report)['keepHere'] / 2)
            self.nodeleak('attach', '--keep', '-q', '-o', 'kept.rec', target.pid)
            self.assertRegex(self.nodeleak('gc', target.pid).stdout, r'worker \S+ +collected')
            self.nodeleak('detach', target.pid)
            self.expect_clean_text(target)
            self.assertEqual((0, 'right\n'), target.end())

    @on_each_node
    def test_a_worker_that_never_yields_is_met(self, node):
        self.check_that_it_is_met(node, 'worker')

    @on_each_node
    def test_a_main_thread_that_never_yields_is_met(self, node):
        self.check_that_it_is_met(node, 'main')

    def check_that_it_is_met(self, node, who):
        program_file = self.program_file('spin.js', """
            const { Worker, isMainThread, workerData } = require('worker_threads');
            const kept = globalThis.kept = [];
            function keepHere() { kept.push(Buffer.alloc(50021)); }
            function wasteHere() { Buffer.alloc(61003); }
            // Compiled after a moment; slow enough that the last collection is not long ago.
            function spin(word) {
              for (let sum = 0; Atomics.load(word, 0) === 0;) {
                for (const end = performance.now() + 5; performance.now() < end;)
                  for (let i = 0; i < 100000; i++) sum += Math.sqrt(i);
                keepHere();
                wasteHere();
              }
            }
            if (isMainThread) {
              const word = new Int32Array(new SharedArrayBuffer(8));
              const spins = process.argv[2] === 'main';
              const rest = 'setInterval(() => {}, 1e6)';
              const other = 'require("fs").readSync(0, Buffer.alloc(9)); Atomics.store(require("worker_threads").workerData, 0, 1)';
              const worker = spins ? new Worker(other, { eval: true, workerData: word }) : new Worker(__filename, { workerData: word });
              worker.on('exit', () => { console.log('right'); process.exit(); });
              setTimeout(() => {
                require('fs').writeSync(1, 'ready\\n');
                if (spins) spin(word);
                else process.stdin.on('end', () => Atomics.store(word, 0, 1)).resume();
              }, 300);
            } else {
              spin(workerData);
            }
        """)

        def blocks(report):
            return {function: sum(g['liveBlocks'] for g in report['groups'] if g['kind'] == 'array-buffer' and
                                  (g['site'] or {}).get('function') == function) for function in ('keepHere', 'wasteHere')}
        with Target([node, program_file, who]) as target:
            time.sleep(0.3)
            report, _ = self.attach(target, duration='1s')
            self.assertGreater(blocks(report)['keepHere'], 20)
            self.assertLess(blocks(report)['wasteHere'], blocks(report)['keepHere'] / 2)
            self.nodeleak('attach', '--keep', '-q', '-o', 'kept.rec', target.pid)
            self.assertRegex(self.nodeleak('gc', target.pid).stdout, who + r'.* +collected')
            self.nodeleak('detach', target.pid)
            self.expect_clean_text(target)
            self.assertEqual((0, 'right\n'), target.end('end'))

    @on_each_node
    def test_it_goes_on_after_a_signal_to_itself(self, node):
        # node runs what it runs at exit before it sends itself a signal, also one that ends nothing.
        source = """
            const kept = globalThis.kept = [];
            function before() { kept.push(Buffer.alloc(50021)); }
            function after() { kept.push(Buffer.alloc(60013)); }
            console.log('ready');
            require('readline').createInterface({ input: process.stdin }).on('line', (signal) => {
              for (let i = 0; i < 7; i++) before();
              process.kill(process.pid, signal);
              for (let i = 0; i < 9; i++) after();
              console.log('sent');
            }).on('close', () => process.exit(5));"""

        def blocks(name):
            self.nodeleak('report', '-q', '--report=signal.json', name)
            with open(self.path('signal.json')) as file:
                report = json.load(file)
            counts = {}
            for group in report['groups']:
                if group['kind'] == 'array-buffer' and group['site']:
                    function = group['site']['function']
                    counts[function] = counts.get(function, 0) + group['liveBlocks']
            return counts, report
        with Target([node, '-e', source]) as target:
            # Also one that was sent while nobody watched: the main isolate is met again.
            for round, signal_name in enumerate(('SIGWINCH', 'SIGCONT', 'SIGURG')):
                self.nodeleak('attach', '--keep', '-q', '-o', f'{round}.rec', target.pid)
                self.assertEqual('sent', target.say(signal_name))
                time.sleep(0.1)
                self.assertEqual('sent', target.say(signal_name))
                self.nodeleak('detach', target.pid)
                counts, report = blocks(f'{round}.rec')
                self.assertEqual((14, 18), (counts.get('before'), counts.get('after')), signal_name)
                self.assertGreater(report['totals']['majorGcs'], 0)
                self.assertTrue([c for c in report['capabilities'] if c['name'] == 'allocations' and c['state'] == 'degraded'])
                self.expect_clean_text(target)
                self.assertEqual('sent', target.say(signal_name))
            # The end that comes is recorded as one.
            self.nodeleak('attach', '--keep', '-q', '-o', 'end.rec', target.pid)
            self.assertEqual('sent', target.say('SIGWINCH'))
            self.assertEqual(5, target.end()[0])
            counts, report = blocks('end.rec')
            self.assertEqual((7, 9), (counts.get('before'), counts.get('after')))
            self.assertEqual('exit', report['process']['ended'])

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
