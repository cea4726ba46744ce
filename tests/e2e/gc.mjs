// nodeleak gc: every isolate of a running process answers or is said to be out of reach, what went is told apart from
// what is left, and the program notices nothing.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { NODE, file, firstLine, newRecording, nodeleak, nodeleakLater, record, report, run, start } from './harness.mjs';

const ADDON = JSON.stringify(process.env.NODELEAK_E2E_ADDON);
const NATIVE = process.env.NODELEAK_E2E_NATIVE;
const ROUNDS = Number(process.env.NODELEAK_E2E_ROUNDS ?? 8);  // requests in a row; more when somebody measures

const READY = 'require("fs").writeSync(1, `${process.pid}\\n`);\n';
const FREEZE = 'setInterval(() => {}, 1e6);\n';
const READ_STDIN = 'require("fs").readSync(0, Buffer.alloc(1));';  // in native code until its stdin ends
const SERVER = READY.replace('process.pid', 'process.pid} ${server.address().port');

// Starts a program, does `act` with its pid (and what else it said first), ends it by SIGKILL unless it has ended.
async function withProgram(code, act, options) {
  const { child, recording, ended } = start([NODE, file('program.js', code)], options);
  const words = (await firstLine(child)).split(' ');
  const pid = Number(words[0]);
  let finished = false;
  ended.then(() => { finished = true; });
  try {
    await act({ pid, words, child, recording, ended });
  } finally {
    if (!finished) process.kill(pid, 'SIGKILL');
    await ended;
  }
}

function collectLater(target) {
  const { child, result } = nodeleakLater(['gc', '--format=json', String(target)]);
  const answer = result.then(({ stdout, ...rest }) => ({ ...rest, what: rest.status === 0 ? JSON.parse(stdout) : undefined }));
  return { child, answer };
}

async function collect(target) {
  const { status, stderr, what } = await collectLater(target).answer;
  assert.strictEqual(status, 0, stderr);
  return what;
}

const states = (what) => Object.fromEntries(what.answers.map((answer) => [answer.thread, answer.state]));
function site(what, name, match = () => true) {
  const rows = what.sites.filter((row) => row.function === name && match(row));
  const total = (field) => rows.reduce((sum, row) => sum + row[field], 0);
  return { garbage: total('garbageBlocks'), pending: total('pendingBlocks'), live: total('liveBlocks') };
}

const isBuffer = (row) => row.kind === 'array-buffer';
const isOurs = (row) => row.origin === 'keep_malloc';

// Until one of these threads (all when none is named) waits in one of these system calls.
async function waitsIn(pid, numbers, tids) {
  const waits = (tid) => numbers.includes(Number(fs.readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').split(' ')[0]));
  while (!(tids ?? fs.readdirSync(`/proc/${pid}/task`)).some(waits)) await new Promise((done) => setTimeout(done, 1));
}
const READ = [0], SLEEP = [35, 230], EPOLL = [232, 281];  // nanosleep and clock_nanosleep; epoll_wait and epoll_pwait

// What each answer took, for whoever asks for many rounds.
const waits = {};
function note(name, what) {
  for (const { state, waitedMs, firstPauseMs, secondPauseMs } of what.answers)
    (waits[`${name}: ${state}`] ??= []).push([waitedMs, firstPauseMs + secondPauseMs]);
}
function sayWaits() {
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  for (const [name, rows] of Object.entries(waits)) {
    const [waited, paused] = [0, 1].map((i) => rows.map((row) => row[i]));
    console.log(`        ${name}: ${rows.length} answers, waited ${median(waited)} ms (at most ${Math.max(...waited)}), ` +
                `paused ${median(paused)} ms (at most ${Math.max(...paused)})`);
  }
}

async function rounds(name, target, check) {
  for (let i = 0; i < ROUNDS; ++i) {
    const what = await collect(target);
    note(name, what);
    check(what);
  }
}

async function refusedBy(answer, why) {
  const { status, stderr } = await answer;
  assert.deepStrictEqual([status, why.test(stderr)], [2, true], stderr);
}
const refused = (target, why) => refusedBy(collectLater(target).answer, why);

// Until it holds the lock of whoever asks: then it has found the process recording.
async function hasItsTurn(asker) {
  const lock = `FLOCK  ADVISORY  WRITE ${asker.pid} `;
  while (!fs.readFileSync('/proc/locks', 'utf8').includes(lock)) await new Promise((done) => setImmediate(done));
}

const LEAVINGS = `
  const addon = require(${ADDON});
  globalThis.kept = [];
  (function hold() { for (let i = 0; i < 7; i++) kept.push(Buffer.allocUnsafeSlow(100003)); })();
  (function waste() { for (let i = 0; i < 30; i++) Buffer.allocUnsafeSlow(70001); })();
  (function wrap() { for (let i = 0; i < 40; i++) { const one = addon.external(50021); if (i < 5) kept.push(one); } })();
`;

await run({
  async 'what was garbage, what waited for finalizers, what is left'() {
    await withProgram(LEAVINGS + READY + FREEZE, async ({ pid, recording }) => {
      const what = await collect(pid);
      assert.deepStrictEqual(states(what), { main: 'done' });
      assert.deepStrictEqual(site(what, 'waste', isBuffer), { garbage: 30, pending: 0, live: 0 });
      assert.deepStrictEqual(site(what, 'hold', isBuffer), { garbage: 0, pending: 0, live: 7 });
      assert.deepStrictEqual(site(what, 'wrap', isOurs), { garbage: 0, pending: 35, live: 5 });
      const again = await collect(recording);
      assert.deepStrictEqual(site(again, 'wrap', isOurs), { garbage: 0, pending: 0, live: 5 });
      const text = nodeleak(['gc', String(pid)]);
      assert.strictEqual(text.status, 0, text.stderr);
      assert.match(text.stdout, /main +collected after [\d.]+ ms, paused [\d.]+ and [\d.]+ ms, 2 turns/);
      assert.match(text.stdout, /array-buffer +hold /);
    });
  },

  'what a variable held is kept for the end, though V8 collects before it'() {
    const program = file('held.js', `
      (function start() {
        const list = [];
        const timer = setInterval(function here() {
          list.push(Buffer.alloc(50021));
          if (list.length === 7) clearInterval(timer);
        }, 1);
      })();
      process.on('beforeExit', () => { gc({ type: 'minor' }); gc({ type: 'minor' }); });`);
    const { report: what } = record([NODE, '--expose-gc', program]);
    const sizes = what.groups.filter((group) => group.site?.function === 'here' && group.kind === 'array-buffer');
    assert.deepStrictEqual(sizes.map((group) => [group.liveBlocks, group.liveBytes]), [[7, 7 * 50021]]);
  },

  async 'at an end that leaves turns, and at one that leaves none'() {
    const program = file('ends.js', LEAVINGS);
    const natural = record([NODE, program]);
    const wraps = (what) => what.groups.find((g) => g.site?.function === 'wrap' && g.origin?.function === 'keep_malloc');
    assert.strictEqual(wraps(natural.report).liveBlocks, 5);
    await withProgram(LEAVINGS + READY + FREEZE, async ({ pid, recording, ended }) => {
      await waitsIn(pid, EPOLL, [pid]);
      process.kill(pid, 'SIGTERM');
      await ended;
      const last = report(recording);
      assert.strictEqual(wraps(last).liveBlocks, 5);
      assert(!last.groups.some((g) => g.site?.function === 'waste' && g.kind === 'array-buffer' && g.liveBlocks !== 0));
      const text = nodeleak(['report', '--top=0', recording]).stdout;
      assert.match(text, /the full GC at the end freed [\d.]+ MiB of garbage,\s+finalizers after it 1\.7 MiB/);
    });
    const exits = record([NODE, file('exits.js', LEAVINGS + 'process.exit(3)')]);
    assert.match(nodeleak(['report', exits.recording]).stdout, /this end left no turn\s+of the event loop/);
  },

  async 'an idle main thread'() {
    await withProgram(READY + FREEZE, async ({ pid }) => {
      await rounds('idle main', pid, (what) => assert.deepStrictEqual(states(what), { main: 'done' }));
    });
  },

  async 'JavaScript that never yields'() {
    await withProgram(LEAVINGS + READY + 'for (;;) ;', async ({ pid }) => {
      const what = await collect(pid);
      note('busy main', what);
      assert.deepStrictEqual(states(what), { main: 'once' });
      assert.deepStrictEqual(site(what, 'waste', isBuffer), { garbage: 30, pending: 0, live: 0 });
    });
  },

  async 'a loop in a synchronous call'() {
    // The child says our pid, so the call has begun.
    const code = 'require("child_process").execFileSync("sh", ["-c", "echo $PPID; exec sleep 9 >/dev/null"], { stdio: "inherit" })';
    await withProgram(code, async ({ pid }) => {
      const what = await collect(pid);
      note('execFileSync', what);
      assert.deepStrictEqual(states(what), { main: 'once' });
      assert.strictEqual(what.answers[0].byInterrupt, false);
    });
  },

  async 'workers: idle, busy, waiting'() {
    const code = `
      const { Worker } = require('worker_threads');
      const bodies = ['setInterval(() => {}, 1e6); up()', 'up(); for (;;) ;',
                      'up(); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)'];
      let left = bodies.length;
      const next = () => {
        if (left === 0) return require('fs').writeSync(1, process.pid + '\\n');
        const up = 'const up = () => require("worker_threads").parentPort.postMessage(1);';
        new Worker(up + bodies[bodies.length - left--], { eval: true }).once('message', next);
      };
      next();`;
    await withProgram(code, async ({ pid }) => {
      const what = await collect(pid);
      note('main and workers', what);
      assert.deepStrictEqual(states(what), { 'main': 'done', 'worker 1': 'done', 'worker 2': 'once', 'worker 3': 'once' });
    });
  },

  // A signal would show: read() and nanosleep() would say EINTR.
  async 'threads in native code are out of reach, and are not disturbed'() {
    const code = `
      const { Worker } = require('worker_threads');
      const fs = require('fs');
      const handlers = ['SIGUSR2', 'SIGWINCH'].map((s) => process.on(s, () => console.log(s)));
      const flag = new Int32Array(new SharedArrayBuffer(4));
      const worker = new Worker(\`const { parentPort, workerData } = require("worker_threads");
        parentPort.postMessage(0);
        parentPort.postMessage(require(${ADDON}).sleepWhile(workerData));\`, { eval: true, workerData: flag });
      worker.once('message', () => {
        worker.once('message', (interrupted) => console.log('interrupted', interrupted));
        fs.writeSync(1, process.pid + '\\n');
        console.log('read', fs.readSync(0, Buffer.alloc(10)));
        flag[0] = 1;
      });`;
    await withProgram(code, async ({ pid, child, ended }) => {
      let said = '';
      child.stdout.on('data', (chunk) => { said += chunk; });
      await waitsIn(pid, READ, [pid]);
      await waitsIn(pid, SLEEP);
      const what = await collect(pid);
      assert.deepStrictEqual(states(what), { 'main': 'not-reached', 'worker 1': 'not-reached' });
      child.stdin.end('four');
      assert.deepStrictEqual(await ended, { status: 0, signal: null });
      assert.strictEqual(said, 'read 4\ninterrupted 0\n');
    });
  },

  async 'a server under load'() {
    const code = `const server = require('http').createServer((request, response) => {
        response.end(Buffer.allocUnsafeSlow(30011).fill('x'));
      }).listen(0, () => { ${SERVER} });`;
    await withProgram(code, async ({ pid, words }) => {
      const agent = new http.Agent({ keepAlive: true });
      let busy = true, answers = 0;
      const one = () => new Promise((done, fail) => {
        http.get({ port: Number(words[1]), agent }, (response) => {
          let bytes = 0;
          response.on('data', (chunk) => { bytes += chunk.length; });
          response.on('end', () => {
            assert.deepStrictEqual([response.statusCode, bytes], [200, 30011]);
            answers += 1;
            done();
          });
        }).on('error', fail);
      });
      const clients = Array.from({ length: 4 }, async () => { while (busy) await one(); });
      await rounds('server under load', pid, (what) => assert.deepStrictEqual(states(what), { main: 'done' }));
      busy = false;
      await Promise.all(clients);
      assert(answers > 0);
      agent.destroy();
    });
  },

  async 'workers that come and go meanwhile'() {
    const code = `
      const { Worker } = require('worker_threads');
      let going = true, count = 0;
      const again = () => { if (going) new Worker('Buffer.alloc(1e5)', { eval: true }).on('exit', () => { count += 1; again(); }); };
      for (let i = 0; i < 3; i++) again();
      process.stdin.on('data', () => {}).on('end', () => { going = false; console.log('end', count > 0); });
      ${READY}`;
    await withProgram(code, async ({ pid, child, ended }) => {
      await rounds('workers that come and go', pid, (what) => assert.strictEqual(states(what).main, 'done'));
      child.stdin.end();
      assert.deepStrictEqual(await ended, { status: 0, signal: null });
    });
  },

  async 'the process ends during the request'() {
    await withProgram(`${READY} ${READ_STDIN} process.exit(7);`, async ({ pid, child, ended }) => {
      const { answer, child: asker } = collectLater(pid);
      await hasItsTurn(asker);
      child.stdin.end();
      await refusedBy(answer, /ended before it could answer|is ending: its picture is already taken/);
      assert.deepStrictEqual(await ended, { status: 7, signal: null });
    });
  },

  async 'whoever asks is killed; two ask at once'() {
    await withProgram(`${READY} ${READ_STDIN} ${FREEZE}`, async ({ pid, child }) => {
      const killed = collectLater(pid);
      await hasItsTurn(killed.child);
      killed.child.kill('SIGKILL');
      child.stdin.end();
      const both = await Promise.all([collect(pid), collect(pid)]);
      for (const what of both) assert.deepStrictEqual(states(what), { main: 'done' });
    });
  },

  async 'a copy is made after a full GC, or says why not'() {
    await withProgram(LEAVINGS + READY + FREEZE, async ({ pid }) => {
      const copyOf = (...options) => {
        const target = newRecording();
        const { status, stdout, stderr } = nodeleak(['snapshot', ...options, String(pid), '-o', target]);
        assert.deepStrictEqual([status, stdout], [0, '']);
        const text = nodeleak(['report', target]);
        assert.match(text.stdout, /still running when it was copied/);
        assert.strictEqual(text.stderr, '');
        const buffers = report(target).groups.filter((group) => group.site?.function === 'waste' && isBuffer(group));
        return { stderr, wasted: buffers.reduce((sum, group) => sum + group.liveBlocks, 0) };
      };
      assert.deepStrictEqual(copyOf('--gc=off'), { stderr: '', wasted: 30 });
      process.kill(pid, 'SIGSTOP');
      const stopped = copyOf();
      assert.match(stopped.stderr, /^nodeleak: copied without a full GC before it, .*process \d+ is stopped/);
      assert.strictEqual(stopped.wasted, 30);
      process.kill(pid, 'SIGCONT');
      assert.deepStrictEqual(copyOf(), { stderr: '', wasted: 0 });
    });
    const { recording } = record([NODE, '-e', '1']);
    assert.deepStrictEqual(nodeleak(['snapshot', recording, '-o', newRecording()]).stderr, '');
  },

  async 'refusals say why'() {
    const { recording } = record([NODE, '-e', '1']);
    await refused(recording, /its process \d+ has ended/);
    await refused(process.pid, /writes no recording/);
    await refused(999_999_999, /there is no process 999999999/);
    await refused(file('no.rec', 'nothing'), /it is not a nodeleak recording/);
    await withProgram(READY + FREEZE, async ({ pid, recording: live }) => {
      const copy = newRecording();
      assert.strictEqual(nodeleak(['snapshot', live, '-o', copy]).status, 0);
      await refused(copy, /it is a copy/);
      const bytes = newRecording();
      fs.copyFileSync(live, bytes);
      await refused(bytes, /does not write this file/);
      process.kill(pid, 'SIGSTOP');
      await refused(pid, /is stopped/);
      process.kill(pid, 'SIGCONT');
      assert.deepStrictEqual(states(await collect(pid)), { main: 'done' });
    });
    const { child, recording: native, ended } = start([NATIVE, 'loop']);
    await firstLine(child);
    await refused(native, /is not node/);
    child_process.spawnSync('pkill', ['-KILL', '-P', String(child.pid)]);
    await ended;
  },
});
sayWaits();
