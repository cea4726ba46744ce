// A program cannot tell that it is watched: stdout, stderr, exit status, signal death and child statuses are the same.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { MAJOR, NODE, NODELEAK, execute, file, firstLine, folder, newRecording, nodeleak, report, run } from './harness.mjs';

const NATIVE = process.env.NODELEAK_E2E_NATIVE;

// Process ids differ, and ports; nothing else may.
const plain = (text) => text?.replace(/\b\d{3,7}\b/g, 'N');

// Bare, then watched. Every recording that came of it is read as well.
function same(name, command, options = {}) {
  const bare = execute(command, options);
  const recording = newRecording();
  const watched = nodeleak(['--quiet', `--output=${recording}`, '--', ...command], options);
  const view = (r) => ({ name, status: r.status, signal: r.signal, stdout: plain(r.stdout), stderr: plain(r.stderr) });
  // We die of the command's signal, as a shell would tell it: 128 + number is as good.
  assert.deepStrictEqual(view(watched), view(bare));
  if (options.expect !== undefined) assert.strictEqual(bare.status ?? bare.signal, options.expect, name);
  return recording;
}

const js = (name, code, options) => same(name, [NODE, '-e', code], options);

// Waits for the first line, sends a signal, compares the end and everything said.
async function sameAfterSignal(name, command, signal, expected) {
  const one = async (watched) => {
    const line = watched ? [NODELEAK, '--quiet', `--output=${newRecording()}`, '--', ...command] : command;
    const child = child_process.spawn(line[0], line.slice(1), { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stderr.on('data', (chunk) => { stderr += chunk; });
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      const pid = /^pid (\d+)\n/.exec(stdout)?.[1];
      if (!pid || child.signalled) return;
      child.signalled = true;
      process.kill(Number(pid), signal);  // the program itself; nodeleak is told by how it ends
    });
    const end = await new Promise((done) => child.on('close', (status, by) => done({ status, by })));
    return { name, ...end, stdout: plain(stdout), stderr: plain(stderr) };
  };
  const [bare, watched] = await Promise.all([one(false), one(true)]);
  assert.deepStrictEqual(watched, bare);
  assert.deepStrictEqual([bare.status, bare.by], expected, name);
}

const PID = 'require("fs").writeSync(1, `pid ${process.pid}\\n`);';

await run({
  'builds a startup snapshot'() {
    if (MAJOR < 20) return;
    // Functions of the program that allocate: V8 refuses a snapshot of an isolate that anybody has a handle in.
    const script = file('snapshot.js', `
      const kept = [];
      function grow() { kept.push(Buffer.alloc(3000)); }
      for (let i = 0; i < 2000; i++) grow();
      globalThis.length = () => kept.length;`);
    const blob = path.join(folder, 'snapshot.blob');
    same('build', [NODE, '--snapshot-blob', blob, '--build-snapshot', script], { expect: 0 });
    const main = file('main.js', 'console.log(length())');
    same('use', [NODE, '--snapshot-blob', blob, main], { expect: 0 });
  },
  // Its code is not there for a moment.
  'node moves itself to large pages'() {
    for (const mode of ['silent', 'on'])
      same(mode, [NODE, `--use-largepages=${mode}`, '-e', 'console.log(Buffer.alloc(1 << 20).length)']);
  },

  'ends by itself'() {
    js('natural', 'console.log(1); console.error(2)', { expect: 0 });
    js('exit code', 'process.exitCode = 9', { expect: 9 });
    js('exit', 'setTimeout(() => process.exit(77), 5); setInterval(() => {}, 1e6)', { expect: 77 });
    js('exit listener', 'process.on("exit", (c) => { console.log("bye", c); process.exitCode = 4 })', { expect: 4 });
    js('throw', 'function f() { throw new TypeError("x") }; f()', { expect: 1 });
    js('throw in exit', 'process.on("exit", () => { throw new Error("late") })', {});
    js('caught', 'process.on("uncaughtException", (e) => console.log(e.message)); setTimeout(() => { throw new Error("y") })');
    js('rejection', 'Promise.reject(new Error("z"))', { expect: 1 });
    js('nothing', '', { expect: 0 });
    same('module never settled', [NODE, file('never.mjs', 'console.log(1); await new Promise(() => {});')], { expect: 13 });
    same('syntax error', [NODE, file('bad.js', 'let let = 1')], { expect: 1 });
    same('no such file', [NODE, 'nowhere.js'], { expect: 1 });
    same('bad option', [NODE, '--no-such-option'], { expect: 9 });
    same('version', [NODE, '--version'], { expect: 0 });
  },

  'dies by itself'() {
    const limit = { env: { NODE_OPTIONS: '' } };
    for (const [signal] of [['SIGSEGV'], ['SIGKILL'], ['SIGTERM'], ['SIGINT'], ['SIGHUP'], ['SIGQUIT'], ['SIGUSR2']]) {
      js(signal, `console.log(0); process.kill(process.pid, "${signal}"); setInterval(() => {}, 1e6)`, limit);
    }
    const abort = (watched) => {
      const command = [NODE, '-e', 'console.log(1); process.abort()'];
      const line = watched ? [NODELEAK, '--quiet', `--output=${newRecording()}`, '--', ...command] : command;
      const { status, signal, stdout } = execute(['sh', '-c', 'ulimit -c 0; exec "$@"', 'sh', ...line]);
      return { status, signal, stdout };
    };
    assert.deepStrictEqual(abort(true), abort(false));
    assert.strictEqual(abort(false).signal, 'SIGABRT');
  },

  async 'signals from outside'() {
    const idle = PID + 'setInterval(() => {}, 1e6);';
    const busy = PID + 'for (;;) ;';
    const handled = (signal) => `let n = 0; process.on("${signal}", () => { console.log("got", ++n);
      setTimeout(() => process.exit(20 + n), 30) }); setInterval(() => {}, 1e6);` + PID;
    const cases = [];
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
      cases.push([`${signal} idle`, [NODE, '-e', idle], signal, [null, signal]]);
      cases.push([`${signal} busy`, [NODE, '-e', busy], signal, [null, signal]]);
      cases.push([`${signal} handled`, [NODE, '-e', handled(signal)], signal, [21, null]]);
    }
    cases.push(['SIGKILL', [NODE, '-e', idle], 'SIGKILL', [null, 'SIGKILL']]);
    cases.push(['once', [NODE, '-e', 'process.once("SIGTERM", () => { console.log("once"); process.kill(process.pid,' +
      ' "SIGTERM") }); setInterval(() => {}, 1e6);' + PID], 'SIGTERM', [null, 'SIGTERM']]);
    for (const each of cases) await sameAfterSignal(...each);
  },

  'standard streams'() {
    const echo = 'process.stdin.on("data", (d) => process.stdout.write(d)).on("end", () => console.log("end"))';
    js('stdin', echo, { input: 'x'.repeat(300_001), expect: 0 });
    same('repl', [NODE, '-i'], { input: '1+1\nprocess.exitCode = 3\n' });
    same('program from stdin', [NODE], { input: 'console.log(__filename, 7 * 6)' });
    same('closed stdin', ['sh', '-c', `"${NODE}" -e 'console.log(require("fs").fstatSync(0).isFile())' <&-`]);
    same('closed stdout', ['sh', '-c', `"${NODE}" -e 'console.log(1); process.exit(5)' >&-`], { expect: 5 });
    same('all closed', ['sh', '-c', `"${NODE}" -e 'process.exit(6)' <&- >&- 2>&-`], { expect: 6 });
    same('broken pipe', ['sh', '-c', `"${NODE}" -e 'for (let i = 0; i < 1e5; i++) console.log(i)' 2>/dev/null | head -n 1`]);
    // What we are given closed must not become a file of ours that the program writes into.
    const recording = newRecording();
    execute(['sh', '-c', `"${NODELEAK}" --quiet --output="${recording}" -- "${NODE}" -e 'console.log("lost")' >&- 2>&-`]);
    assert(!fs.readFileSync(recording).includes('lost\n'));
  },

  'children'() {
    const program = file('children.js', `
      const { fork, spawnSync, execSync, execFileSync, exec } = require('child_process');
      if (process.argv[2] === 'child') {
        process.on('message', (m) => { process.send(m * 2); process.disconnect(); process.exitCode = 8; });
      } else {
        console.log(spawnSync(process.execPath, ['-e', 'process.exit(5)']).status);
        console.log(spawnSync(process.execPath, ['-p', 'Object.keys(process.env).filter((k) => !/NODELEAK|LD_PRELOAD/.test(k)).length'], { env: {} }).stdout.toString());
        console.log(spawnSync('sh', ['-c', 'kill -9 $$']).signal, spawnSync('nothing-there').error.code);
        console.log(execSync('echo in a shell', { env: {} }).toString());
        console.log(execFileSync(process.execPath, ['-p', '6*7'], { cwd: '/', env: { A: '1' } }).toString());
        exec('exit 3', (e) => {  // one after the other: who is first is anybody's guess
          console.log('exec', e.code);
          const child = fork(__filename, ['child']);
          child.send(21);
          child.on('message', (m) => console.log('message', m)).on('exit', (c, s) => console.log('exit', c, s));
        });
      }`);
    same('children', [NODE, program], { expect: 0 });
    const cluster = file('cluster.js', `
      const cluster = require('cluster'), http = require('http');
      if (cluster.isPrimary) {
        let left = 3;
        for (let i = 0; i < 3; i++) cluster.fork();
        cluster.on('exit', (w, code, signal) => { if (--left === 0) console.log('all gone', code, signal); });
      } else {
        http.createServer((q, s) => s.end('x')).listen(0, () => process.exit(4));
      }`);
    same('cluster', [NODE, cluster], { expect: 0 });
  },

  'threads'() {
    const program = file('workers.js', `
      const { Worker, isMainThread } = require('worker_threads');
      if (!isMainThread) { global.x = Buffer.alloc(10007); return; }
      let left = 5;
      const next = () => left-- > 0 ? new Worker(__filename).on('exit', next) : console.log('done', left);
      next(); next(); next();
      const w = new Worker('setInterval(() => {}, 1e6)', { eval: true });
      w.on('online', () => w.terminate().then((c) => console.log('terminated', c)));
      new Worker('throw new Error("in a worker")', { eval: true }).on('error', (e) => console.log(e.message));
      new Worker('process.exit(6)', { eval: true }).on('exit', (c) => console.log('exit', c));`);
    const sorted = (r) => ({ status: r.status, signal: r.signal, stderr: r.stderr, lines: r.stdout.split('\n').sort() });
    const bare = execute([NODE, program]);
    const watched = nodeleak(['--quiet', `--output=${newRecording()}`, '--', NODE, program]);
    assert.deepStrictEqual(sorted(watched), sorted(bare));
    same('worker exits', [NODE, file('worker-exit.js', `
      const { Worker, isMainThread } = require('worker_threads');
      if (isMainThread) { new Worker(__filename); setTimeout(() => process.exit(3), 100); }
      else for (;;) new ArrayBuffer(1e5);`)], { expect: 3 });
  },

  'surroundings'() {
    js('chdir', 'process.chdir("/"); console.log(process.cwd())');
    same('address space', ['bash', '-c', `ulimit -v 2000000; "${NATIVE}" vfork`], { expect: 0 });
    same('few descriptors', ['bash', '-c', `ulimit -n 64; "${NODE}" -p 1`], { expect: 0 });
    const test = file('a.test.js', 'require("node:test")("a", () => {});');
    if (MAJOR >= 20) {
      const run = (line) => execute([...line, NODE, '--test', test]);
      const view = (r) => [r.status, r.stdout.replace(/\d+\.\d+/g, 'T')];
      assert.deepStrictEqual(view(run([NODELEAK, '--quiet', `--output=${newRecording()}`, '--'])), view(run([])));
    }
    if (process.getuid() === 0) js('setuid', 'process.setgid(65534); process.setuid(65534); console.log(process.getuid())');
    js('title', 'process.title = "odd"; console.log(process.title)');
    js('heap limit', 'console.log(require("v8").getHeapStatistics().heap_size_limit > 0)',
       { env: { NODE_OPTIONS: '--max-old-space-size=50' } });
    js('vm and wasm', 'console.log(require("vm").runInNewContext("1+1"), WebAssembly.validate(new Uint8Array(8)))');
  },

  // A write beyond it would be a SIGXFSZ, which ends programs that do not ignore it.
  'a limit for the size of files'() {
    const limited = (blocks, command) => ['bash', '-c', `ulimit -f ${blocks}; exec "$@"`, 'bash', ...command];
    const said = /^nodeleak: process \d+ is not recorded: [^\n]*limit for the size of files is too low[^\n]*\n$/;
    for (const command of [[NODE, '-p', '1'], [NATIVE, 'totals']]) {
      for (const blocks of [0, 100, 300]) {
        const bare = execute(limited(blocks, command));
        const watched = execute(limited(blocks, [NODELEAK, `--output=${newRecording()}`, '--', ...command]));
        assert.deepStrictEqual([watched.status, watched.signal, watched.stdout], [bare.status, bare.signal, bare.stdout]);
        assert.match(watched.stderr, said);
        const inside = nodeleak(['-q', '--children=all', `--output=${newRecording()}`, '--', ...limited(blocks, command)]);
        assert.deepStrictEqual([inside.status, inside.stdout], [bare.status, bare.stdout]);
        assert.match(inside.stderr, said);
      }
    }
    const recording = newRecording();
    const grows = ['-e', 'globalThis.kept = []; for (let i = 0; i < 3e4; ++i) kept.push(Buffer.allocUnsafeSlow(33))'];
    const cut = execute(limited(1100, [NODELEAK, '-q', `--output=${recording}`, '--', NODE, ...grows]));
    assert.deepStrictEqual([cut.status, cut.stderr], [0, '']);
    assert.match(nodeleak(['report', recording]).stdout.replace(/\s+/g, ' '), /is full, by the program's limit for the size of files/);
  },

  'programs that are not node'() {
    for (const mode of ['totals', 'fork', 'vfork', 'close-all', 'mappings']) same(mode, [NATIVE, mode]);
    same('fault', ['sh', '-c', 'ulimit -c 0; exec "$0" fault', NATIVE]);
    const daemon = path.join(folder, 'daemon.out');
    same('daemon', [NATIVE, 'daemon', daemon], { expect: 0 });
    // One more, high up: the recording.
    const count = (r) => Number.parseInt(r.stdout, 10);
    const bare = count(execute([NATIVE, 'descriptors']));
    const watched = count(nodeleak(['--quiet', `--output=${newRecording()}`, '--', NATIVE, 'descriptors']));
    assert.strictEqual(watched, bare + 1, 'descriptors');
    for (const shell of ['sh', 'bash']) same(shell, [shell, '-c', 'echo $((6*7)); cd /; pwd; exit 12'], { expect: 12 });
    same('no such command', ['sh', '-c', 'no-such-command']);
  },

  'a command that cannot be started'() {
    const missing = nodeleak(['--quiet', '--', '/no/such/command']);
    assert.strictEqual(missing.status, 2, missing.stderr);
    const refused = nodeleak(['--quiet', '--', file('not-executable', 'x')]);
    assert.strictEqual(refused.status, 2, refused.stderr);
    for (const { stderr } of [missing, refused]) assert.match(stderr, /^nodeleak: [^\n]+\n$/);
  },
});
