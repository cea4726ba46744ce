// Small programs whose verdict is known: `node verdict_programs.cjs NAME MILLISECONDS ADDON`. What each keeps, or only
// seems to keep, is allocated in a function named `here`. A line on stdout says that the program has begun.
'use strict';
const { EventEmitter } = require('events');
const { Worker, isMainThread, workerData } = require('worker_threads');

const [name, milliseconds, addonPath] = isMainThread ? process.argv.slice(2) : workerData;
const run = Number(milliseconds);
const kept = globalThis.kept = [];
const keep = (value) => kept.push(value);
let dropped;
const drop = (value) => dropped = value;

const timers = [];
const every = (ms, call) => timers[timers.push(setInterval(call, ms)) - 1];
const buffers = (ms, size, use) => every(ms, function here() { use(Buffer.alloc(size)); });
const several = function here(count, size, use) { for (let i = 0; i < count; i++) use(Buffer.alloc(size)); };
const churn = (bytes) => { for (let i = 0; i < bytes / 65536; i++) drop(Buffer.alloc(65536)); };
const addonCalls = (call, size, use) => every(8, function here() { use(require(addonPath)[call](size)); });

function cache(evict) {
  const entries = globalThis.entries = new Map();
  let key = 0;
  buffers(4, 9001, (value) => {
    entries.set(key++, value);
    evict(entries, key - 1);
  });
}

// Without certificates: pre-shared keys.
function tlsPairs(each) {
  const tls = require('tls');
  const key = Buffer.alloc(16, 7);
  const common = { ciphers: 'PSK', maxVersion: 'TLSv1.2' };
  const echo = (socket) => {
    socket.on('data', (data) => socket.write(data));
    socket.on('error', () => {});
  };
  const server = tls.createServer({ ...common, pskCallback: () => key }, echo);
  const pskCallback = () => ({ psk: key, identity: 'odd' });
  const client = { ...common, host: '127.0.0.1', checkServerIdentity() {}, pskCallback };
  server.listen(0, '127.0.0.1', () => every(30, function here() {
    const socket = tls.connect({ ...client, port: server.address().port }, () => socket.write('x'));
    socket.on('error', () => {});
    each(socket);
  }));
}

const worker = (program) => new Worker(__filename, { workerData: [program, run, addonPath] });

const leaks = {
  growingCache() { buffers(8, 9973, keep); },
  slowLeakUnderChurn() { every(5, function here() { keep(new ArrayBuffer(1999)); churn(1 << 19); }); },
  oneInAHundred() {
    let count = 0;
    every(5, function here() { several(60, 19993, (value) => ++count % 100 === 0 ? keep(value) : drop(value)); });
  },
  fewLargeBlocks() { buffers(run / 12, 250007, keep); },
  bursts() { every(run / 7, function here() { for (let i = 0; i < 30; i++) keep(Buffer.alloc(15013)); }); },
  waves() {
    let t = 0;
    every(8, function here() {
      t += 0.008;
      for (let i = 2 * (1 + Math.sin(5 * t)); i > 0; i--) keep(Buffer.alloc(9001));
    });
  },
  timersNeverCleared() { buffers(8, 12007, (data) => setTimeout(() => data.length, 1e8)); },
  listenersNeverRemoved() {
    const emitter = globalThis.emitter = new EventEmitter().setMaxListeners(0);
    buffers(8, 12007, (data) => emitter.on('never', () => data.length));
  },
  promisesNeverResolved() { buffers(8, 12007, async (data) => { await new Promise(keep); return data; }); },
  zlibNeverClosed() { every(40, function here() { keep(require('zlib').createInflate()); }); },
  tlsSocketsKept() { tlsPairs((socket) => { socket.on('data', () => {}); keep(socket); }); },
  poolSlabsPinned() {
    every(2, function here() {
      for (let i = 0; i < 60; i++) (i % 20 === 0 ? keep : drop)(Buffer.allocUnsafe(397));
    });
  },
  addonLosesBlocks() { addonCalls('lose', 9973, drop); },
  addonBuffersKept() { addonCalls('external', 9973, keep); },
  addonObjectsKept() { addonCalls('wrapped', 9973, keep); },
  bufferThatGrows() {
    let all = Buffer.alloc(0);
    every(20, function here() { globalThis.all = all = Buffer.concat([all, Buffer.alloc(8009)]); });
  },
  arrayThatDoubles() {
    let array = new Uint8Array(999), used = 0;
    every(4, function here() {
      for (let i = 0; i < 4999; i++) {
        if (used === array.length) {
          const larger = new Uint8Array(2 * used);
          larger.set(array);
          globalThis.array = array = larger;
        }
        array[used++] = i;
      }
    });
  },
  queueThatFills() {
    const queue = globalThis.queue = [];
    let events = 0;
    buffers(4, 9001, (value) => {  // two come, one goes, however busy the machine is
      queue.push(value);
      if (++events % 2 === 0) queue.shift();
    });
  },
  wasmMemoryThatGrows() {
    const memory = globalThis.memory = (function here() { return new WebAssembly.Memory({ initial: 1, maximum: 999 }); })();
    every(40, () => memory.grow(1));
  },
  leakInAWorker() { worker('growingCache'); },
  leakBesideAWorker() { worker('elsewhere'); buffers(8, 9973, keep); },
  leakWithoutTurns() {
    setTimeout(function here() {
      for (const end = Date.now() + run * 0.9; Date.now() < end;) {
        keep(Buffer.alloc(9973));
        for (let i = 0; i < 2e6; i++) drop(i);
      }
    }, 1);
  },
  javaScriptHeapUnderChurn() {
    every(8, () => {
      drop(Array.from({ length: 8000 }, (_, i) => ({ text: `odd ${i}` })));
      for (let i = 0; i < 150; i++) keep({ text: `kept ${i}`, list: [i, i, i] });
    });
  },
  javaScriptHeap() { every(4, () => { for (let i = 0; i < 300; i++) keep({ text: `odd ${i}`, list: [i, i, i] }); }); },
};

// Of functions that have run long ago, in variables of theirs: these programs end by themselves, with nothing to do.
const endByThemselves = {
  variableOfAFunction() { const list = []; buffers(8, 9973, (value) => list.push(value)); },
  javaScriptHeapOfAFunction() {
    const list = [];
    every(4, () => { for (let i = 0; i < 300; i++) list.push({ text: `odd ${i}`, list: [i, i, i] }); });
  },
  ringOfAFunction() { let i = 0; const ring = []; buffers(4, 19993, (value) => ring[i++ % 60] = value); },
  jobsOfAFunction() {
    every(run / 12, () => {  // the next begins when the one before has ended
      const job = [];
      const timer = buffers(run / 500, 9001, (value) => { if (job.push(value) === 30) clearInterval(timer); });
    });
  },
};

const innocents = {
  ring() { let i = 0; buffers(4, 19993, (value) => kept[i++ % 60] = value); },
  lruAtCapacity() { cache((entries) => { if (entries.size > 60) entries.delete(entries.keys().next().value); }); },
  memoized() {
    const known = globalThis.known = new Map();
    let key = 1;
    every(4, function here() {
      for (let i = 0; i < 8; i++) {
        key = (key * 48271) % 2147483647;
        if (!known.has(key % 999)) known.set(key % 999, Buffer.alloc(9001));
      }
    });
  },
  expiringCache() { cache((entries, key) => setTimeout(() => entries.delete(key), run / 8)); },
  sawtooth() { buffers(4, 9001, (value) => { if (keep(value) === 120) kept.splice(0, 110); }); },
  tableAtStart() { (function here() { several(300, 19993, keep); })(); every(8, () => churn(1 << 18)); },
  leakThatStops() {
    const timer = buffers(4, 9001, keep);
    setTimeout(() => clearInterval(timer), run * 0.3);
    every(4, drop);
  },
  garbageBeforeTheEnd() {
    every(8, () => churn(1 << 16));
    setTimeout(function here() { several(400, 19993, keep); kept.length = 0; }, run * 0.95);
  },
  periodicJob() {
    every(run / 6, function here() {
      const job = [];
      several(100, 19993, (value) => job.push(value));
      setTimeout(() => job.length, run / 16);
    });
  },
  timersThatFire() { buffers(4, 12007, (data) => setTimeout(() => data.length, 100)); },
  weakReferences() { buffers(4, 9001, (value) => { if (keep(new WeakRef(value)) > 300) kept.shift(); }); },
  zlibStreams() {
    every(20, function here() {
      const stream = require('zlib').createGzip();
      stream.on('data', () => {});
      stream.end('odd'.repeat(999));
    });
  },
  tlsSocketsEnd() { tlsPairs((socket) => socket.on('data', () => socket.destroy())); },
  addonBuffersDropped() { addonCalls('external', 50021, drop); },
  addonFinalizersWork() { addonCalls('externalWithWork', 50021, drop); },
  addonObjectsDropped() { addonCalls('wrapped', 50021, drop); },
  workersComeAndGo() { const next = () => worker('shortWork').on('exit', next); next(); },
  buffersPosted() {
    // No more are under way than the receiver can be late: a queue that fills is no innocent.
    let underWay = 0;
    const receiver = worker('receiver').on('message', () => underWay--);
    every(4, function here() {
      if (++underWay > 20) return underWay--;
      const data = new ArrayBuffer(19993);
      receiver.postMessage(data, [data]);
    });
  },
  fragmentation() {
    every(40, function here() {
      for (let i = 0; i < 300; i++) (i % 10 === 0 ? keep : drop)(Buffer.allocUnsafeSlow(1000 + (i * 37) % 3000));
      if (kept.length > 600) kept.splice(0, 300);
    });
  },
  javaScriptCache() {
    const entries = new Map();
    let key = 0;
    every(4, () => {
      for (let i = 0; i < 100; i++) {
        entries.set(key++, { text: `odd ${key}`, list: [key] });
        if (entries.size > run / 4 * 25) entries.delete(entries.keys().next().value);
      }
    });
  },
  idle() { every(1e6, drop); },
};

const inWorkers = {
  elsewhere() { let i = 0; every(4, function there() { kept[i++ % 100] = Buffer.alloc(19993); }); },
  shortWork() { (function here() { several(50, 19993, keep); })(); setTimeout(() => process.exit(), 100); },
  receiver() {
    const { parentPort } = require('worker_threads');
    parentPort.on('message', (data) => parentPort.postMessage(drop(data).byteLength));
  },
};

if (process.execArgv.includes('--expose-gc')) every(run / 20, () => globalThis.gc());
({ ...leaks, ...endByThemselves, ...innocents, ...inWorkers })[name]();
if (isMainThread) {
  require('fs').writeSync(1, 'begun\n');
  setTimeout(() => name in endByThemselves ? timers.forEach(clearInterval) : process.exit(0), run);
}
