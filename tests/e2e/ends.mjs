// After any end the recording says what was outstanding and how the process ended; after SIGKILL as of the last moment.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import { NODE, NODELEAK, file, firstLine, folder, have, newRecording, nodeleak, outstanding, report, run, skip, start } from './harness.mjs';

const NATIVE = process.env.NODELEAK_E2E_NATIVE;
const HOLD = 'const kept = globalThis.kept = [];\n' +
  'function hold() { for (let i = 0; i < 7; i++) kept.push(Buffer.allocUnsafeSlow(100003)); }\nhold();\n';
const HELD = { bytes: 7 * 100003, blocks: 7 };
const READY = 'require("fs").writeSync(1, `${process.pid}\\n`);\n';

// Runs to the first line, does `act` with the program's pid, reads the recording after the end.
async function endBy(code, act, flags) {
  const program = file('end.js', HOLD + code);
  const { child, recording, ended } = start([NODE, program], { flags });
  const pid = Number(await firstLine(child));
  await act(pid, recording);
  return { end: await ended, report: report(recording), recording };
}

// A main thread that is gone says little while others of its process still end.
function isThere(pid) {
  try {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
    return !/^State:\s+[ZX]/m.test(status) || /^Threads:\s+([2-9]|\d\d)/m.test(status);
  } catch {
    return false;
  }
}

const FREEZE = 'setInterval(() => {}, 1e6);';

await run({
  async 'killed by SIGKILL'() {
    const { report, recording } = await endBy(READY + FREEZE, (pid) => process.kill(pid, 'SIGKILL'));
    assert.deepStrictEqual([report.process.ended, report.process.signal], ['signal', 'SIGKILL']);
    assert.match(nodeleak(['report', recording]).stdout.split('\n')[1], /(ended|killed) by SIGKILL/);
    assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), HELD);
  },

  async 'killed together with nodeleak'() {
    const program = file('both.js', HOLD + READY + FREEZE);
    const { child, recording, ended } = start([NODE, program]);
    const pid = Number(await firstLine(child));
    child.kill('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await ended;
    while (isThere(pid)) await new Promise((done) => setTimeout(done, 10));  // its pipes close before it is gone
    const what = report(recording);
    assert.deepStrictEqual(outstanding(what, 'hold', 'array-buffer'), HELD);
    assert.strictEqual(what.process.ended, 'killed');
  },

  async 'read while it runs'() {
    const { report: last } = await endBy(READY + FREEZE, (pid, recording) => {
      const live = report(recording);
      assert.strictEqual(live.process.ended, 'running');
      assert.deepStrictEqual(outstanding(live, 'hold', 'array-buffer'), HELD);
      process.kill(pid, 'SIGTERM');
    });
    assert.deepStrictEqual([last.process.ended, last.process.signal], ['signal', 'SIGTERM']);
    assert.deepStrictEqual(outstanding(last, 'hold', 'array-buffer'), HELD);
  },

  async 'killed in the code of a regular expression'() {
    const code = READY + 'function deep(s) { return /^(?:(a)|(b))*(?:x+x+)+y/.test(s); }\n' +
      'deep("ab".repeat(50000) + "x".repeat(60));';
    const stacksThrough = (what) => what.groups.flatMap((group) => group.stacks)
      .filter((stack) => stack.frames.some((frame) => /RegExpStack::EnsureCapacity/.test(frame.function)));
    const { report: last } = await endBy(code, async (pid, recording) => {
      while (stacksThrough(report(recording)).length === 0) await new Promise((done) => setTimeout(done, 100));
      process.kill(pid, 'SIGKILL');
    });
    for (const { frames } of stacksThrough(last)) {
      assert.deepStrictEqual(frames.filter((frame) => frame.type === 'marker'), []);
      assert.strictEqual(frames.find((frame) => frame.file.endsWith('end.js')).function, 'deep');
    }
  },

  async 'SIGTERM in a busy loop'() {
    const { end, report } = await endBy(READY + 'for (;;) ;', (pid) => process.kill(pid, 'SIGTERM'));
    assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), HELD);
    assert.deepStrictEqual([report.process.ended, report.process.signal], ['signal', 'SIGTERM']);
    assert(end.signal === 'SIGTERM' || end.status === 143, JSON.stringify(end));
  },

  async 'abort and SIGSEGV'() {
    for (const [code, signal] of [['process.abort()', 'SIGABRT'], ['process.kill(process.pid, "SIGSEGV")', 'SIGSEGV']]) {
      const { report } = await endBy(READY + code, () => {});
      assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), HELD);
      assert.deepStrictEqual([report.process.ended, report.process.signal], ['signal', signal], code);
    }
  },

  // node runs what it runs at exit before it sends itself a signal, also one that ends nothing.
  async 'it goes on after a signal to itself'() {
    const again = '(function later() { for (let i = 0; i < 5; i++) kept.push(Buffer.allocUnsafeSlow(60001)); })();';
    for (const end of ['process.exit(3)', 'process.kill(process.pid, "SIGTERM"); for (;;) ;']) {
      const { report } = await endBy(`${READY}process.kill(process.pid, "SIGWINCH"); ${again} ${end}`, () => {});
      assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), HELD, end);
      assert.deepStrictEqual(outstanding(report, 'later', 'array-buffer'), { bytes: 5 * 60001, blocks: 5 }, end);
      assert(report.capabilities.some((c) => c.name === 'allocations' && c.state === 'degraded'), 'it says so');
      assert.deepStrictEqual([report.process.exitCode, report.process.signal],
        end.includes('exit') ? [3, null] : [null, 'SIGTERM']);
    }
  },

  async 'a worker goes on after a signal to its process'() {
    const worker = 'const k = globalThis.k = []; process.kill(process.pid, "SIGWINCH");' +
      '(function later() { for (let i = 0; i < 5; i++) k.push(Buffer.allocUnsafeSlow(60001)); })();' +
      'require("worker_threads").parentPort.postMessage(1); setInterval(() => {}, 1e6);';
    const { report } = await endBy(READY +
      `new (require("worker_threads").Worker)(${JSON.stringify(worker)}, { eval: true }).on("message", () => process.exit());`,
      () => {});
    assert.deepStrictEqual(outstanding(report, 'later', 'array-buffer'), { bytes: 5 * 60001, blocks: 5 });
  },

  async 'every end that runs exit handlers'() {
    const garbage = 'for (let i = 0; i < 9; i++) (function waste() { Buffer.allocUnsafeSlow(70001); })();';
    const ends = { 'process.exit(3)': 3, 'process.reallyExit(4)': 4, 'process.exitCode = 5': 5, 'throw new Error("x")': 1,
                   'Promise.reject(1)': 1, 'setTimeout(() => process.exit(6), 5); setInterval(() => {}, 1e6)': 6 };
    for (const [code, status] of Object.entries(ends)) {
      const quiet = 'process.stderr.write = () => true;';
      const { end, report } = await endBy(garbage + quiet + READY + code, () => {});
      assert.strictEqual(end.status, status, code);
      assert.deepStrictEqual([report.process.ended, report.process.exitCode], ['exit', status], code);
      assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), HELD, code);
      assert.deepStrictEqual(outstanding(report, 'waste', 'array-buffer'), { bytes: 0, blocks: 0 }, code);
    }
  },

  async 'without a collection'() {
    const garbage = '(function waste() { for (let i = 0; i < 3; i++) Buffer.allocUnsafeSlow(70001); })();';
    const { report } = await endBy(garbage + READY, () => {}, ['--gc=off']);
    assert.deepStrictEqual(outstanding(report, 'waste', 'array-buffer'), { bytes: 210003, blocks: 3 });
  },

  async 'a C program killed'() {
    const { child, recording, ended } = start([NATIVE, 'loop']);
    await firstLine(child);
    const pid = Number(child_process.spawnSync('pgrep', ['-P', String(child.pid), 'e2e_native'], { encoding: 'utf8' }).stdout);
    process.kill(pid, 'SIGKILL');
    await ended;
    while (isThere(pid)) await new Promise((done) => setTimeout(done, 10));  // its pipes close before it is gone
    const what = report(recording);
    const kept = what.groups.find((g) => g.origin?.function === 'KeepSome');
    assert.deepStrictEqual([kept.liveBytes, kept.liveBlocks, what.process.signal], [37 * 5051, 37, 'SIGKILL']);
  },

  // By a shell's kill %1, by timeout, by the program itself: it comes to the program and to us, and to nobody twice.
  async 'a signal to the whole process group'() {
    const program = file('group.js', `
      let n = 0;
      for (const signal of ['SIGTERM', 'SIGUSR2', 'SIGCONT'])
        process.on(signal, () => { n += 1; setTimeout(() => { console.log(signal, n); process.exit(9); }, 300); });
      ${READY} if (process.argv[2]) process.kill(0, 'SIGUSR2');
      setInterval(() => {}, 1e6);`);
    const told = async (act, ...args) => {
      const { child, ended } = start([NODE, program, ...args], { detached: true });
      let text = '';
      child.stdout.on('data', (chunk) => { text += chunk; });
      const pid = Number(await firstLine(child));
      await act(child.pid, pid);
      assert.strictEqual((await ended).status, 9);
      return text.split('\n')[1];
    };
    assert.strictEqual(await told((pid) => process.kill(-pid, 'SIGTERM')), 'SIGTERM 1');
    assert.strictEqual(await told((pid) => process.kill(-pid, 'SIGCONT')), 'SIGCONT 1');
    assert.strictEqual(await told((pid) => process.kill(pid, 'SIGTERM')), 'SIGTERM 1');
    assert.strictEqual(await told(() => {}, 'itself'), 'SIGUSR2 1');
    // The process of ours that tells the one from the other is not let run for a while.
    assert.strictEqual(await told(async (ours, programs) => {
      const children = fs.readFileSync(`/proc/${ours}/task/${ours}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
      const witness = children.find((pid) => pid !== programs);
      process.kill(witness, 'SIGSTOP');
      process.kill(-ours, 'SIGTERM');
      await new Promise((done) => setTimeout(done, 250));
      process.kill(witness, 'SIGCONT');
    }), 'SIGTERM 1');
  },

  // A terminal sends SIGINT to the whole group: the program sees it once, and the report still comes.
  async 'Ctrl-C in a terminal'() {
    if (!have('script')) skip('no script(1) to make a terminal');
    const program = file('ctrl-c.js', HOLD + `
      let n = 0;
      process.on('SIGINT', () => { n += 1; setTimeout(() => { console.log('interrupts ' + n); process.exit(9); }, 50); });
      ${READY} setInterval(() => {}, 1e6);`);
    const command = `'${NODELEAK}' --top=0 --output='${newRecording()}' -- '${NODE}' '${program}'; echo status $?`;
    const child = child_process.spawn('script', ['-qefc', command, '/dev/null'], { cwd: folder, stdio: ['pipe', 'pipe', 'ignore'] });
    let screen = '';
    child.stdout.on('data', (chunk) => { screen += chunk; });
    await firstLine(child);
    child.stdin.write('\x03');
    await new Promise((done) => child.on('close', done));
    assert.match(screen, /interrupts 1\r?\n/);
    assert.match(screen, /site +hold\b/);
    assert.match(screen, /exited with code 9/);
  },
});
