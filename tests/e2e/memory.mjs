// Where the resident memory went: each line against what is known otherwise, and the sum against the kernel's count.
import assert from 'node:assert';
import fs from 'node:fs';
import { MAJOR, NODE, file, firstLine, nodeleak, record, run, start, sum } from './harness.mjs';

const ADDON = process.env.NODELEAK_E2E_ADDON;
const FINALIZERS = process.env.NODELEAK_E2E_FINALIZERS;
const MIB = 1 << 20;

const NOTHING = { bytes: 0, touchedBytes: 0, parts: [] };
const line = (memory, name) => memory.lines.find((row) => row.name === name) ?? NOTHING;
const near = (actual, expected, what, scale = expected) =>
  assert(Math.abs(actual - expected) <= scale * 0.03, `${what} on ${MAJOR}: ${actual}, not ${expected} within 3 %`);

// What the lines have touched is the RSS, and little of it is not explained.
function checkSum(memory, rss = memory.rssBytes) {
  assert(['end', 'now'].includes(memory.at), memory.at);
  near(sum(memory.lines, 'touchedBytes'), rss, 'the sum of the lines');
  assert(line(memory, 'unexplained').touchedBytes <= rss * 0.03,
         `unexplained on ${MAJOR}: ${JSON.stringify(memory.lines.map((row) => [row.name, row.touchedBytes]))}`);
}

function rss(target) {
  const result = nodeleak(['rss', '--format=json', String(target)]);
  assert.strictEqual(result.status, 0, result.stderr);
  return JSON.parse(result.stdout).memory;
}

function rollup(pid) {
  return Number(fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').match(/^Rss:\s+(\d+) kB/m)[1]) * 1024;
}

// What `look` says of a process that stands still meanwhile: pages come and go with any collection.
async function stopped(pid, look) {
  process.kill(pid, 'SIGSTOP');
  const stands = (tid) => /^State:\s+T/m.test(fs.readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8'));
  while (!fs.readdirSync(`/proc/${pid}/task`).every(stands)) await new Promise((next) => setTimeout(next, 1));
  const seen = look();
  process.kill(pid, 'SIGCONT');
  return seen;
}

// By the kernel: the resident part of the areas that the stack pointers of a stopped process are in.
function stacksOf(pid) {
  const pointers = fs.readdirSync(`/proc/${pid}/task`)
    .map((tid) => BigInt(fs.readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').split(' ').at(-2)));
  let bytes = 0;
  for (const area of fs.readFileSync(`/proc/${pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, start, end] = area.match(/^([0-9a-f]+)-([0-9a-f]+) /);
    if (!pointers.some((at) => at >= BigInt(`0x${start}`) && at < BigInt(`0x${end}`))) continue;
    bytes += Number(area.match(/^Rss:\s+(\d+) kB/m)[1]) * 1024;
  }
  return bytes;
}

// The index of node's unwind tables (PT_GNU_EH_FRAME), from where node is loaded: whoever looks up functions touches all
// of it, 16 pages at each fault.
function unwindIndex() {
  const elf = fs.readFileSync(NODE);
  const headers = Array.from({ length: elf.readUInt16LE(56) }, (_, i) => {
    const at = Number(elf.readBigUInt64LE(32)) + i * elf.readUInt16LE(54);
    return { type: elf.readUInt32LE(at), address: elf.readBigUInt64LE(at + 16), bytes: elf.readBigUInt64LE(at + 40) };
  });
  const index = headers.find(({ type }) => type === 0x6474e550);
  const loaded = headers.find(({ type }) => type === 1).address & ~0xfffn;
  return { offset: index.address - loaded, pages: Number(index.bytes / 4096n) };
}

function residentShare(pid, index) {
  const maps = fs.readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  const start = BigInt(`0x${maps.find((area) => area.endsWith(fs.realpathSync(NODE))).split('-')[0]}`);
  const pages = Buffer.alloc(index.pages * 8);
  const pagemap = fs.openSync(`/proc/${pid}/pagemap`);
  fs.readSync(pagemap, pages, 0, pages.length, (start + index.offset) / 4096n * 8n);
  fs.closeSync(pagemap);
  let resident = 0;
  for (let at = 0; at < pages.length; at += 8) resident += pages[at + 7] >> 7;
  return resident / index.pages;
}

const ended = (child) => new Promise((done) => child.on('close', done));

await run({
  async 'what an idle process needed to walk its stacks is let go'() {
    const { child, ended } = start([NODE, '-e', 'setInterval(() => {}, 1000); console.log(process.pid)']);
    const pid = Number(await firstLine(child));
    const index = unwindIndex();
    let share = 1;
    for (let i = 0; i < 100 && share > 0.3; ++i) {
      await new Promise((next) => setTimeout(next, 100));
      share = residentShare(pid, index);
    }
    process.kill(pid);
    await ended;
    assert(share <= 0.3, `${share} of the index of node ${MAJOR}'s unwind tables is resident`);
  },

  'a fragmented heap is free memory that malloc keeps'() {
    const program = file('fragments.js', `
      const addon = require(${JSON.stringify(ADDON)});
      addon.fragment(2003);
      setTimeout(() => addon.printFree(0), 50);`);
    const { stdout, report: { memory } } = record([NODE, program]);
    const free = Number(stdout);
    assert(free > 180 * MIB, stdout);
    near(line(memory, 'malloc: free, but kept').touchedBytes, free, 'free but kept');
    checkSum(memory);
    const main = line(memory, 'malloc: free, but kept').parts[0];
    // 49 blocks of 2003 bytes, 96 KiB, between two that stay; some neighbours were free already.
    assert.match(main.detail, /^[\d,]+ free runs, largest (9\d\.\d|[1-9]\d\d\.\d) KiB/);
    assert.strictEqual(memory.advice.length, 1);
    assert.match(memory.advice[0], /is free memory that malloc keeps.*MALLOC_ARENA_MAX would not help/);
  },

  'array buffers: what is held, and what of it was touched'() {
    const program = file('buffers.js', `
      globalThis.kept = Array.from({ length: 16 }, () => new ArrayBuffer(${64 * MIB}));
      for (const buffer of kept.slice(0, 5)) new Uint8Array(buffer).fill(1);
      setTimeout(() => {}, 10);`);
    const { memory } = record([NODE, program]).report;
    near(line(memory, 'array-buffer').bytes, 1024 * MIB, 'held by array buffers');
    near(line(memory, 'array-buffer').touchedBytes, 320 * MIB, 'touched by array buffers');
    checkSum(memory);
  },

  'wasm: reserved, committed, touched'() {
    const program = file('wasm.js', `
      globalThis.memory = new WebAssembly.Memory({ initial: 1600, maximum: 65536 });
      new Uint8Array(memory.buffer, 0, ${50 * MIB}).fill(1);
      setTimeout(() => {}, 10);`);
    const { memory } = record([NODE, program]).report;
    near(line(memory, 'wasm-memory').bytes, 100 * MIB, 'committed by wasm');
    near(line(memory, 'wasm-memory').touchedBytes, 50 * MIB, 'touched by wasm');
    assert(line(memory, 'reserved').bytes > 7 * 1024 * MIB, JSON.stringify(line(memory, 'reserved')));
    assert.strictEqual(line(memory, 'reserved').touchedBytes, 0);
    checkSum(memory);
  },

  async '50 workers, looked at while they run'() {
    const program = file('workers.js', `
      const { Worker, isMainThread, parentPort } = require('worker_threads');
      const heap = () => require('v8').getHeapStatistics();
      if (isMainThread) {
        let left = 50;
        const heaps = [];
        for (let i = 0; i < 50; ++i) {
          new Worker(__filename).on('message', (worker) => {
            heaps.push(worker);
            if (--left === 0) console.log(JSON.stringify({ pid: process.pid, heaps: [...heaps, heap()] }));
          });
        }
        process.stdin.once('data', () => process.exit());
      } else {
        setInterval(() => {}, 1e6);
        setTimeout(() => parentPort.postMessage(heap()), 300);  // the recorder has seen its statistics
      }`);
    const { child, ended } = start([NODE, program]);
    const { pid, heaps } = JSON.parse(await firstLine(child));
    const [stacks, memory] = await stopped(pid, () => [stacksOf(pid), rss(pid)]);
    child.stdin.write('end\n');
    await ended;
    checkSum(memory);
    // Of committed pages V8 has not touched all, and what it uses it has. Some it keeps for later in no space: in each
    // isolate as many as the young generation begins with.
    const heap = line(memory, 'JavaScript heap').touchedBytes;
    const [used, total] = [sum(heaps, 'used_heap_size'), sum(heaps, 'total_heap_size')];
    assert(heap >= used && heap <= total + heaps.length * MIB, `JavaScript heap on ${MAJOR}: ${[heap, used, total]}`);
    near(line(memory, 'thread stacks').touchedBytes, stacks, 'thread stacks');
    assert(line(memory, 'JavaScript heap').parts.some((space) => space.name === 'old_space' && space.touchedBytes > 0));
  },

  async 'an HTTP server: the lines are the RSS of smaps_rollup'() {
    const program = file('server.js', `
      const http = require('http');
      const zlib = require('zlib');
      const server = http.createServer((request, response) => response.end(zlib.gzipSync(Buffer.alloc(20011, 'x'))));
      server.listen(0, async () => {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
        const one = () => new Promise((done) => http.get({ port: server.address().port, agent },
          (response) => response.on('data', () => {}).on('end', done)));
        const some = async () => { for (let i = 0; i < 400; ++i) await one(); };
        await Promise.all([some(), some(), some(), some()]);
        console.log(process.pid);
        process.stdin.once('data', () => process.exit());
      });`);
    const { child, recording, ended } = start([NODE, program]);
    const pid = Number(await firstLine(child));
    const [kernels, memory] = await stopped(pid, () => [rollup(pid), rss(pid)]);
    assert.strictEqual(memory.at, 'now');
    checkSum(memory, kernels);
    assert.strictEqual(rss(recording).at, 'now');
    child.stdin.write('end\n');
    await ended;
    const stored = rss(recording);
    assert.strictEqual(stored.at, 'end');
    checkSum(stored);
  },

  async '--on-rss writes a report while the program runs'() {
    const program = file('grows.js', `
      globalThis.kept = [Buffer.alloc(${150 * MIB}, 1)];
      console.log(process.pid);
      process.stdin.once('data', () => process.exit());`);
    const target = file('grown.json', '');
    fs.unlinkSync(target);
    const { child, recording, ended } = start([NODE, program], { flags: ['--on-rss=120MiB', `--report=${target}`] });
    await firstLine(child);
    const early = target.replace('.json', '.rss.json');
    while (!fs.existsSync(early)) await new Promise((next) => setTimeout(next, 20));
    assert(!fs.existsSync(target));
    child.stdin.write('end\n');
    assert.deepStrictEqual(await ended, { status: 0, signal: null });
    const { memory, process: { ended: how } } = JSON.parse(fs.readFileSync(early));
    assert.strictEqual(how, 'running');
    const crossed = [memory, ...memory.others].find((picture) => picture.at === 'rss-limit');
    assert(crossed.rssBytes >= 120 * MIB, `${crossed.rssBytes}`);
    assert(rss(recording).others.some((picture) => picture.at === 'rss-limit'));
    assert(fs.existsSync(target));
  },

  'what an addon holds, and what it told V8 of it'() {
    const findings = (tell) => {
      const program = file(`tells-${tell}.js`, `
        const addon = require(${JSON.stringify(FINALIZERS)});
        globalThis.kept = [];
        for (let i = 0; i < 40; ++i) {
          kept.push(addon.wrapped(1000003));
          if (${tell}) addon.tell(1000003);
        }
        setTimeout(() => {}, 10);`);
      const { external } = record([NODE, program]).report;
      near(external.addons[0].heldBytes, 40 * 1000003, 'held by the addon');
      return external.findings;
    };
    assert.deepStrictEqual(findings(true), []);
    const [finding, ...others] = findings(false);
    assert.deepStrictEqual(others, []);
    assert.match(finding, /e2e_finalizers.node holds 38\.\d MiB, of which V8 knows [\d.]+ (B|KiB) at most/);
  },

  'blocks that were not sampled are not free'() {
    const program = file('sampled.js', `
      const addon = require(${JSON.stringify(FINALIZERS)});
      globalThis.kept = [];
      for (let i = 0; i < 50000; ++i) kept.push(addon.wrapped(2003));
      setTimeout(() => {}, 10);`);
    const { memory } = record([NODE, program], { flags: ['--sample=512KiB'] }).report;
    checkSum(memory);
    assert(line(memory, 'malloc: not recorded').touchedBytes > 90 * MIB, JSON.stringify(memory.lines));
    assert(line(memory, 'malloc: free, but kept').touchedBytes < 10 * MIB, JSON.stringify(memory.lines));
    assert.deepStrictEqual(memory.advice, []);
  },

  async 'a process that nobody records'() {
    const { spawn } = await import('node:child_process');
    const program = file('unrecorded.js', `
      const addon = require(${JSON.stringify(ADDON)});
      addon.fragment(2003);
      console.log(process.pid);
      process.stdin.once('data', () => process.exit());`);
    const child = spawn(NODE, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
    const pid = Number(await firstLine(child));
    const memory = rss(pid);
    const text = nodeleak(['rss', String(pid)]);
    child.stdin.write('end\n');
    await ended(child);
    near(sum(memory.lines, 'touchedBytes'), memory.rssBytes, 'the sum of the lines');
    near(line(memory, 'malloc: free, but kept').touchedBytes, 98_000 * 2016, 'free but kept');
    assert.match(text.stdout, /not recorded/);
    assert.match(nodeleak(['rss', '999999999']).stderr, /there is no process 999999999/);
  },
});
