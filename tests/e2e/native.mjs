// Programs without JavaScript: totals against glibc's own count; other allocators preloaded beside us.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import { NODE, NODELEAK, execute, file, newRecording, nodeleak, outstanding, record, report, run, skip } from './harness.mjs';

const NATIVE = process.env.NODELEAK_E2E_NATIVE;
const THREADS = 4;
const KEPT = 37;
const DTV_ENTRY = 16;

const findLibrary = (name) => ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib']
  .map((directory) => `${directory}/${name}`).find((candidate) => fs.existsSync(candidate));

// What glibc's libmemusage counted: calls and bytes of malloc, realloc and calloc, and freed bytes.
function countByGlibc(...command) {
  const library = findLibrary('libmemusage.so');
  if (!library) skip('no libmemusage.so (package libc-devtools)');
  const text = execute(command, { env: { LD_PRELOAD: library } }).stderr.replace(/\x1b\[[0-9;]*m/g, '');
  const row = (name) => /(\d+)\s+(\d+)/.exec(new RegExp(`^\\s*${name}\\|(.*)$`, 'm').exec(text)[1]).slice(1).map(Number);
  const [malloc, realloc, calloc, free] = ['malloc', 'realloc', 'calloc', 'free'].map(row);
  return { calls: malloc[0] + realloc[0] + calloc[0], bytes: malloc[1] + calloc[1], freed: free[1] };
}

function checkKept(what) {
  const kept = what.groups.filter((g) => g.origin?.function === 'KeepSome');
  let bytes = 0;
  for (let i = 0; i < THREADS; i++) bytes += KEPT * (1999 + i);
  assert.strictEqual(kept.reduce((n, g) => n + g.liveBytes, 0), bytes);
  assert.strictEqual(kept.reduce((n, g) => n + g.liveBlocks, 0), KEPT * THREADS);
  assert(kept.every((g) => g.stacks.every((s) => s.frames.some((f) => f.function === 'Churn'))));
}

const ALLOCATORS = { jemalloc: 'libjemalloc.so.2', mimalloc: 'libmimalloc.so.2' };

function withAllocator(name, check) {
  return () => {
    const library = findLibrary(ALLOCATORS[name]);
    if (!library) skip(`no ${ALLOCATORS[name]}`);
    check(library);
  };
}

// The user's LD_PRELOAD comes first, or the program sets it itself for its child.
function checkBeside(library) {
  const before = record([NATIVE, 'totals'], { env: { LD_PRELOAD: library } });
  assert.strictEqual(before.status, 0, before.stderr);
  checkKept(before.report);
  const recording = newRecording();
  const inside = nodeleak(['--quiet', `--output=${recording}`, '--', 'env', `LD_PRELOAD=${library}`, NATIVE, 'totals']);
  assert.strictEqual(inside.status, 0, inside.stderr);
  const shim = NODELEAK.replace(/[^/]*$/, 'libnodeleak-preload.so');
  for (const order of [`${library}:${shim}`, `${shim}:${library}`]) {
    const ordered = newRecording();
    const result = nodeleak(['--quiet', `--output=${ordered}`, '--', 'env', `LD_PRELOAD=${order}`, NATIVE, 'totals']);
    assert.strictEqual(result.status, 0, result.stderr);
    if (fs.existsSync(ordered)) checkKept(report(ordered));
  }
  const program = file('beside.js', 'globalThis.kept = [];\n' +
    'function hold() { for (let i = 0; i < 3; i++) kept.push(Buffer.alloc(50021)); }\nhold();');
  const script = record([NODE, program], { env: { LD_PRELOAD: library } });
  assert.strictEqual(script.status, 0, script.stderr);
  assert.deepStrictEqual(outstanding(script.report, 'hold', 'array-buffer'), { bytes: 150063, blocks: 3 });
}

await run({
  'totals of a threaded program without realloc'() {
    const glibc = countByGlibc(NATIVE, 'plain');
    const { totals } = record([NATIVE, 'plain']).report;
    assert.strictEqual(totals.allocations, glibc.calls);
    // Each library with thread-local variables that we bring along lengthens each thread's table by one entry.
    const ours = totals.allocatedBytes - glibc.bytes;
    assert(ours % (THREADS * DTV_ENTRY) === 0 && ours >= 0 && ours <= 3 * THREADS * DTV_ENTRY, `${ours} bytes more`);
  },

  'calls and what is left of a threaded program with realloc'() {
    const { report: what } = record([NATIVE, 'totals']);
    checkKept(what);
    assert.strictEqual(what.totals.allocations, countByGlibc(NATIVE, 'totals').calls);
    assert.deepStrictEqual(what.totals.lost, { blocks: 0, stacks: 0, bytes: 0 });
  },

  'mappings split, moved and mapped over'() {
    const { report: what } = record([NATIVE, 'mappings']);
    const pages = what.groups.filter((g) => g.origin?.function === 'Mappings').reduce((n, g) => n + g.liveBytes, 0) / 4096;
    assert.strictEqual(pages, 100);
  },

  'a fork without exec stays out of the recording'() {
    const { report: what, stdout } = record([NATIVE, 'fork']);
    assert.match(stdout, /child ended with 7/);
    const kept = what.groups.filter((g) => g.origin?.function === 'KeepSome').reduce((n, g) => n + g.liveBytes, 0);
    assert.strictEqual(kept, KEPT * (5003 + 5009));
    assert.strictEqual(what.process.exitCode, 3);
  },

  'jemalloc beside us': withAllocator('jemalloc', checkBeside),
  'mimalloc beside us': withAllocator('mimalloc', checkBeside),
});
