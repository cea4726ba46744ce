// A tree of processes: each node its own recording, shells none, one summary, the full report of the largest.
import assert from 'node:assert';
import fs from 'node:fs';
import path from 'node:path';
import { NODE, NODELEAK, file, folder, have, nodeleak, report, run, skip } from './harness.mjs';

const hold = (size, times = 1) => `const kept = globalThis.kept = [];
function hold() { for (let i = 0; i < ${times}; i++) kept.push(Buffer.allocUnsafeSlow(${size})); }
hold();\n`;

// Runs in a new directory, where the recordings fall.
let directories = 0;
function runIn(args, options = {}) {
  const cwd = path.join(folder, `tree-${++directories}`);
  fs.mkdirSync(cwd);
  const result = nodeleak(args, { cwd, ...options });
  const recordings = fs.readdirSync(cwd).filter((name) => name.endsWith('.rec')).sort();
  return { ...result, cwd, recordings, reports: recordings.map((name) => report(path.join(cwd, name))) };
}

const heldBy = (what) => what.groups.filter((g) => g.kind === 'array-buffer' && g.site?.function === 'hold')
  .reduce((n, g) => n + g.liveBytes, 0);
const held = (result) => result.reports.map(heldBy).sort((a, b) => a - b);

const forker = () => {
  file('small.js', hold(110017));
  return file('forker.js', hold(220009) + `
    const { fork, execFileSync } = require('child_process');
    fork(${JSON.stringify(path.join(folder, 'small.js'))});
    execFileSync(process.execPath, ['-e', 'globalThis.x = 1']);`);
};

await run({
  'a shell leaves no recording'() {
    const program = file('one.js', hold(330017));
    const result = runIn(['sh', '-c', `"${NODE}" "${program}"; true`]);
    assert.deepStrictEqual(held(result), [330017]);
    assert.strictEqual(result.recordings.length, 1);
    assert.match(result.recordings[0], /^nodeleak\.node\.\d+\.rec$/);
    assert.match(result.stderr, /hold/);
  },

  'fork: one each, and the summary names all'() {
    const result = runIn([NODE, forker()]);
    assert.deepStrictEqual(held(result), [0, 110017, 220009]);
    for (const { process: { pid } } of result.reports) assert.match(result.stderr, new RegExp(`\\b${pid}\\b`));
    assert.match(result.stderr, /forker\.js/);
  },

  // A mapping, not a block; and the pages of the JavaScript heap are none.
  'WebAssembly memory counts in the summary'() {
    const program = file('wasm-child.js', `
      if (process.argv[2]) {
        globalThis.memory = new WebAssembly.Memory({ initial: 800 });
        new Uint8Array(globalThis.memory.buffer).fill(1);
      } else {
        globalThis.kept = Buffer.allocUnsafeSlow(5000011).fill(1);
        require('child_process').spawnSync(process.execPath, [__filename, 'child']);
      }`);
    const result = runIn([NODE, program]);
    const largest = result.reports.reduce((a, b) => (b.totals.liveBytes > a.totals.liveBytes ? b : a));
    assert.match(result.stderr, new RegExp(`the report below is of ${largest.process.pid}$`, 'm'));
    for (const { process: { pid }, totals: { liveBytes } } of result.reports) {
      const shown = (liveBytes / (1 << 20)).toFixed(1);
      assert.match(result.stderr, new RegExp(`^ *${pid} +${shown} MiB `, 'm'), result.stderr);
    }
    assert(largest.totals.liveBytes > 800 * 65536);
  },

  'a cluster of three'() {
    const program = file('cluster.js', `
      const cluster = require('cluster');
      if (cluster.isPrimary) {
        for (let i = 1; i <= 3; i++) cluster.fork({ SIZE: String(100003 * i) });
      } else {
        const kept = globalThis.kept = [];
        (function hold() { kept.push(Buffer.allocUnsafeSlow(Number(process.env.SIZE))); })();
        require('http').createServer(() => {}).listen(0, () => process.disconnect());
      }`);
    assert.deepStrictEqual(held(runIn([NODE, program])), [0, 100003, 200006, 300009]);
  },

  '--children'() {
    const none = runIn(['--children=none', NODE, forker()]);
    assert.deepStrictEqual(held(none), [220009]);
    const shell = `"${NODE}" "${forker()}"`;
    const all = runIn(['--children=all', 'sh', '-c', `${shell}; true`]);
    assert.deepStrictEqual(held(all), [0, 0, 110017, 220009]);
  },

  'names of recordings'() {
    const named = runIn(['--output=%n-%p.rec', NODE, forker()]);
    assert.strictEqual(named.recordings.length, 3);
    for (const name of named.recordings) assert.match(name, /^node-\d+\.rec$/);
    const plain = runIn(['--output=x.rec', '--report=x.json', NODE, forker()]);
    assert.strictEqual(plain.recordings.filter((name) => /^x\.\d+\.rec$/.test(name)).length, 2, plain.recordings.join());
    assert(plain.recordings.includes('x.rec'));
    assert.strictEqual(heldBy(report(path.join(plain.cwd, 'x.rec'))), 220009);
    const reports = fs.readdirSync(plain.cwd).filter((name) => name.endsWith('.json'));
    assert.strictEqual(reports.length, 3, reports.join());
  },

  'two runs with one name: nobody is told the report of the other'() {
    const inner = `require('child_process').spawnSync(${JSON.stringify(NODELEAK)},
      ['--quiet', '--output=one.rec', process.execPath, '-e', '1'], { env: { PATH: process.env.PATH } });`;
    const result = runIn(['--output=one.rec', NODE, '-e', inner]);
    assert.deepStrictEqual([result.status, result.recordings], [0, ['one.rec']]);
    assert.match(result.stderr, /^nodeleak: another run of nodeleak has replaced the recording [^\n]+one\.rec of process \d+;/);
    assert.doesNotMatch(result.stderr, /Outstanding/);
  },

  'npm start and npx'() {
    if (!have('npm')) skip('no npm');
    const home = path.join(folder, 'package');
    fs.mkdirSync(path.join(home, 'bin'), { recursive: true });
    fs.symlinkSync(NODE, path.join(home, 'bin/node'));
    fs.writeFileSync(path.join(home, 'package.json'), '{"name":"odd","version":"1.0.0","scripts":{"start":"node app.js"}}');
    fs.writeFileSync(path.join(home, 'app.js'), hold(1_700_021) + 'console.log("app ran")');
    const npm = fs.realpathSync(process.env.PATH.split(':').map((p) => `${p}/npm`).find((p) => fs.existsSync(p)));
    const env = { PATH: `${home}/bin:${process.env.PATH}`, npm_config_update_notifier: 'false' };
    const result = nodeleak([NODE, npm, 'start'], { cwd: home, env });
    assert.strictEqual(result.status, 0, result.stderr);
    assert.match(result.stdout, /app ran/);
    const recordings = fs.readdirSync(home).filter((name) => name.endsWith('.rec'));
    assert.strictEqual(recordings.length, 2, recordings.join());
    // npm itself may hold more: it only launched the program.
    assert.match(result.stderr, /nodeleak: node [^\n]*app\.js {2}\(pid/);
    assert.match(result.stderr, /site +hold +app\.js:2:/);
  },
});
