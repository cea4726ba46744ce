// Outstanding bytes and blocks are exact, and each is at the right JavaScript line, native function, kind and thread.
import assert from 'node:assert';
import fs from 'node:fs';
import path from 'node:path';
import { MAJOR, NODE, file, folder, groupsOf, outstanding, positionOf, record, run, sum } from './harness.mjs';

const ADDON = process.env.NODELEAK_E2E_ADDON;
const KEEP = 'const kept = globalThis.kept = [];\n';
const WASM_PAGE = 65536;

// One function each: what it keeps, how often, and what must be outstanding under its name.
const BACKING_STORES = [
  { name: 'bufferAlloc', code: 'Buffer.alloc(50021)', needle: 'alloc(', size: 50021, times: 3 },
  { name: 'bufferSlow', code: 'Buffer.allocUnsafeSlow(19993)', needle: 'allocUnsafeSlow(', size: 19993, times: 5 },
  { name: 'bufferUnsafe', code: 'Buffer.allocUnsafe(40009)', needle: 'allocUnsafe(', size: 40009, times: 2 },
  { name: 'bufferFrom', code: 'Buffer.from("x".repeat(90019))', needle: 'from(', size: 90019, times: 1 },
  { name: 'arrayBuffer', code: 'new ArrayBuffer(70001)', needle: 'new ', size: 70001, times: 2, builtin: 'ArrayBuffer' },
  { name: 'shared', code: 'new SharedArrayBuffer(80021)', needle: 'new ', size: 80021, times: 2,
    builtin: 'SharedArrayBuffer' },
  { name: 'typedArray', code: 'new Float64Array(10007)', needle: 'new ', size: 80056, times: 3, builtin: 'Float64Array' },
  { name: 'sliced', code: 'kept[0].buffer.slice(10)', needle: 'slice(', size: 50011, times: 1 },
];

function backingStoreProgram(name) {
  const lines = BACKING_STORES.map(({ name, code, times }) =>
    `function ${name}() {\n  for (let i = 0; i < ${times}; i++) {\n    kept.push(${code});\n  }\n}\n${name}();\n`);
  const freed = 'function freed() { for (let i = 0; i < 40; i++) Buffer.alloc(90001); }\nfreed();\n';
  return file(name, KEEP + lines.join('') + freed + 'setTimeout(() => {}, 10);\n');
}

function checkBackingStores(what, program, thread) {
  for (const row of BACKING_STORES) {
    const groups = groupsOf(what, row.name).filter((g) => g.kind === 'array-buffer');
    const live = outstanding(what, row.name, 'array-buffer');
    assert.deepStrictEqual(live, { bytes: row.size * row.times, blocks: row.times }, row.name);
    const site = groups.find((g) => g.liveBlocks > 0).site;
    const at = positionOf(program, row.code);
    const column = at.column + row.code.indexOf(row.needle);
    assert.deepStrictEqual([row.name, site.file, site.line, site.column], [row.name, program, at.line, column]);
    for (const group of groups) assert.deepStrictEqual(group.threads, [thread], row.name);
    if (row.builtin === undefined) continue;
    const frames = groups.flatMap((g) => g.stacks.flatMap((s) => s.frames.map((f) => f.function)));
    assert(frames.includes(row.builtin), `${row.name}: ${frames}`);
  }
  // Only the main thread is collected before the picture is taken.
  if (thread === 'main') assert.deepStrictEqual(outstanding(what, 'freed', 'array-buffer'), { bytes: 0, blocks: 0 });
}

const ADDON_CALLS = [
  { call: 'malloc', origin: 'keep_malloc', size: 50021 },
  { call: 'calloc', origin: 'keep_calloc', size: 50023 },
  { call: 'realloc', origin: 'keep_realloc', size: 50033 },
  { call: 'reallocarray', origin: 'keep_reallocarray', size: 50047 },
  { call: 'posixMemalign', origin: 'keep_posix_memalign', size: 50051 },
  { call: 'alignedAlloc', origin: 'keep_aligned_alloc', size: 50053 },
  { call: 'memalign', origin: 'keep_memalign', size: 50069 },
  { call: 'operatorNew', origin: 'keep_new', size: 50077 },
  { call: 'newArray', origin: 'keep_new_array', size: 50087 },
  { call: 'failedRealloc', origin: 'keep_failed_realloc', size: 50093 },
];
const ADDON_TIMES = 3;
const MAPPED = { size: 1_220_608, times: 2 };  // 298 pages

function installAddon() {
  const home = path.join(folder, 'node_modules/@odd/blocks');
  fs.mkdirSync(path.join(home, 'build/Release'), { recursive: true });
  fs.copyFileSync(ADDON, path.join(home, 'build/Release/blocks.node'));
  file('node_modules/@odd/blocks/package.json', '{"name":"@odd/blocks","version":"4.7.11","main":"index.js"}');
  file('node_modules/@odd/blocks/index.js',
       'const addon = require("./build/Release/blocks.node");\n' +
       'for (const name of Object.keys(addon)) exports[name] = function (size) { return addon[name](size); };\n');
}

function addonProgram(name) {
  const functions = ADDON_CALLS.map(({ call, size }) =>
    `function use_${call}() {\n  for (let i = 0; i < ${ADDON_TIMES}; i++) addon.${call}(${size});\n}\nuse_${call}();\n`);
  return file(name, `const addon = require('@odd/blocks');\n${functions.join('')}` +
    `function use_mmap() { for (let i = 0; i < ${MAPPED.times}; i++) addon.mmap(${MAPPED.size}); }\nuse_mmap();\n` +
    'function use_giveBack() { for (let i = 0; i < 20; i++) addon.giveBack(77003); }\nuse_giveBack();\n' +
    'setTimeout(() => {}, 10);\n');
}

// V8 may finish a compiler's job, or map a page of its heap, while any function runs: what is its own is not compared.
const outstandingGroups = (what, site) =>
  groupsOf(what, site).filter((g) => g.liveBlocks > 0 && !g.kind.startsWith('v8-'));

function checkAddon(what, program, thread) {
  for (const { call, origin, size } of ADDON_CALLS) {
    const groups = outstandingGroups(what, `use_${call}`);
    assert.deepStrictEqual(groups.map((g) => [g.kind, g.origin.function, g.liveBytes, g.liveBlocks]),
                           [['addon', origin, size * ADDON_TIMES, ADDON_TIMES]], call);
    const { site, threads } = groups[0];
    assert.deepStrictEqual(
      [site.file, site.line, site.column],
      [program, positionOf(program, `addon.${call}(`).line, positionOf(program, `addon.${call}(`).column + 6]);
    assert.strictEqual(groups[0].origin.package, '@odd/blocks@4.7.11');
    assert.deepStrictEqual(threads, [thread]);
  }
  assert.deepStrictEqual(outstandingGroups(what, 'use_mmap').map((g) => [g.kind, g.origin.function, g.liveBytes]),
                         [['mapping', 'keep_mmap', MAPPED.size * MAPPED.times]]);
  for (const kind of ['addon', 'mapping']) {
    assert.deepStrictEqual(outstanding(what, 'use_giveBack', kind), { bytes: 0, blocks: 0 });
  }
}

await run({
  'array buffers of the main thread'() {
    const program = backingStoreProgram('stores.js');
    const result = record([NODE, program]);
    assert.strictEqual(result.status, 0, result.stderr);
    checkBackingStores(result.report, program, 'main');
    assert.strictEqual(result.report.process.ended, 'exit');
    assert.deepStrictEqual(result.report.totals.lost, { blocks: 0, stacks: 0, bytes: 0 });
  },

  'array buffers of a worker that lives to the end'() {
    const program = backingStoreProgram('stores-worker.js');
    fs.appendFileSync(program, 'require("worker_threads").parentPort.postMessage(0); setInterval(() => {}, 1e6);\n');
    const main = file('stores-main.js', `
      const { Worker } = require('worker_threads');
      const worker = new Worker(${JSON.stringify(program)});
      worker.on('message', () => process.exit(0));`);
    const result = record([NODE, main]);
    assert.strictEqual(result.status, 0, result.stderr);
    checkBackingStores(result.report, program, 'worker 1');
  },

  'addon blocks'() {
    installAddon();
    const program = addonProgram('addon.js');
    const result = record([NODE, program]);
    assert.strictEqual(result.status, 0, result.stderr);
    checkAddon(result.report, program, 'main');
  },

  'addon blocks of a worker that ended'() {
    installAddon();
    const program = addonProgram('addon-worker.js');
    const main = file('addon-main.js', `require('@odd/blocks');
      new (require('worker_threads').Worker)(${JSON.stringify(program)}).on('exit', () => setTimeout(() => {}, 10));`);
    const result = record([NODE, main]);
    assert.strictEqual(result.status, 0, result.stderr);
    checkAddon(result.report, program, 'worker 1');
  },

  'an ES module with file: URL and top-level await'() {
    const program = file('module with space.mjs', 'await null;\nconst kept = globalThis.kept = [];\n' +
      'export const hold = async () => { await 1; kept.push(new ArrayBuffer(61001)); };\nawait hold();\n');
    const { report } = record([NODE, program]);
    assert.deepStrictEqual(outstanding(report, 'hold', 'array-buffer'), { bytes: 61001, blocks: 1 });
    const { site } = groupsOf(report, 'hold').find((g) => g.kind === 'array-buffer');
    assert.deepStrictEqual([site.file, site.line], [program, 3]);
  },

  // Optimized code that inlines one of many closures does not say which: no name then, never another's.
  'a computed name of a method is right or missing, however hot the method'() {
    const program = file('computed.js', KEEP + `
      function make(k) { return { ['n' + k](keep) { const b = new ArrayBuffer(5000 + k); if (keep) kept.push(b); } }; }
      function call(object, k, keep) { object['n' + k](keep); }
      for (let i = 0; i < 60000; i++) call(make(i % 5), i % 5, i % 100 < 5);
      process.exit();`);
    const { report } = record([NODE, program]);
    const here = report.groups.filter((g) => g.site?.file === program && g.kind === 'array-buffer');
    for (const group of here.filter((g) => /^n\d$/.test(g.site.function))) {
      const size = 5000 + Number(group.site.function[1]);
      assert.strictEqual(group.liveBytes, group.liveBlocks * size, JSON.stringify(group.site));
    }
    assert.strictEqual(sum(here, 'liveBytes'), 3000 * 5002);
    assert.strictEqual(sum(here, 'liveBlocks'), 3000);
  },

  'kinds of what node and V8 hold'() {
    const program = file('kinds.js', KEEP + `
      function wasm() { kept.push(new WebAssembly.Memory({ initial: 3, maximum: 7 })); }
      function deflate() { const z = require('zlib').createDeflate(); z.write('x'); kept.push(z); }
      function brotli() { const z = require('zlib').createBrotliCompress(); z.write('x'); kept.push(z); }
      function digest() { kept.push(require('crypto').createHash('sha256')); }
      function keyPair() { kept.push(require('crypto').createSecretKey(Buffer.alloc(20011))); }
      function blob() { kept.push(new Blob([new Uint8Array(60013)])); }
      wasm(); deflate(); brotli(); digest(); keyPair(); blob();
      setTimeout(() => {}, 30);`);
    const { report } = record([NODE, program]);
    const kinds = (site) => groupsOf(report, site).filter((g) => g.liveBytes > 0).map((g) => g.kind);
    assert.deepStrictEqual(outstanding(report, 'wasm', 'wasm-memory').bytes % WASM_PAGE, 0);
    assert(outstanding(report, 'wasm', 'wasm-memory').bytes >= 3 * WASM_PAGE, JSON.stringify(groupsOf(report, 'wasm')));
    // Compressors allocate on a libuv pool thread, where no JavaScript is on the stack.
    const ofPool = (kind) => report.groups.filter((g) => g.kind === kind && g.threads.includes('libuv pool') && g.liveBytes > 0);
    const pooled = (kind) => sum(ofPool(kind), 'liveBytes');
    assert(pooled('zlib') > 100_000, `zlib: ${JSON.stringify(report.kinds)}`);
    assert(pooled('brotli') + outstanding(report, 'brotli', 'brotli').bytes > 1_000, `brotli: ${JSON.stringify(report.kinds)}`);
    for (const { site, likelySite } of ofPool('zlib')) {
      const { function: name, line, objects, allObjects } = likelySite;
      const made = positionOf(program, 'function deflate').line;
      assert.deepStrictEqual([site, name, line, objects, allObjects], [null, 'deflate', made, 1, 1]);
    }
    assert(outstanding(report, 'digest', 'openssl').blocks > 0, `openssl: ${kinds('digest')}`);
    const holdsBlob = groupsOf(report, 'blob').filter((g) => g.liveBytes >= 60013);
    assert.strictEqual(sum(holdsBlob, 'liveBytes') % 60013, 0, `blob on ${MAJOR}: ${JSON.stringify(holdsBlob)}`);
  },
});
