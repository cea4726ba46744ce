// What the tests run: `node program.js <what>`. Odd sizes as fingerprints; every wait is for an event, not for time.
'use strict';
const { spawn, spawnSync, execFile, execFileSync, fork } = require('child_process');
const path = require('path');
const what = process.argv[2];

const ready = () => console.log('ready');
const child = (next, ...rest) => [path.join(__dirname, 'program.js'), next, ...rest];

const programs = {
  natural() {},
  timer() { setTimeout(() => console.log('later'), 5); },
  exit() { process.exit(3); },
  exitLater() { setTimeout(() => process.exit(300 + 7), 1); },
  reallyExit() { process.reallyExit(5); },
  exitCode() { process.exitCode = 9; },
  throws() { throw new Error('boom'); },
  rejects() { Promise.reject(new Error('no')); },
  aborts() { process.abort(); },
  killsItself(signal) { process.kill(process.pid, signal); console.log('not reached'); },
  exitListener() { process.on('exit', (code) => console.log('exit', code)); },

  server() { require('http').createServer(() => {}).listen(0, ready); },
  busy() { require('fs').writeSync(1, 'ready\n'); for (;;) Math.sqrt(Math.random()); },
  busyPrinting() { const fs = require('fs'); fs.writeSync(1, 'ready\n'); for (let i = 0;; ++i) Math.imul(i, i); },
  waits() {
    require('fs').writeSync(1, 'ready\n');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
  inSpawnSync() { require('fs').writeSync(1, 'ready\n'); spawnSync('sleep', ['30']); },
  inNative() { require('fs').writeSync(1, 'ready\n'); require('crypto').pbkdf2Sync('a', 'b', 300_000_000, 64, 'sha512'); },
  handler(signal) {
    let times = 0;
    process.on(signal, () => { console.log('handled', ++times); setTimeout(() => process.exit(times), 30); });
    setInterval(() => {}, 1000);
    ready();
  },
  handlerOnce(signal) {  // the second one is deadly
    process.once(signal, () => console.log('handled'));
    setInterval(() => {}, 1000);
    ready();
  },
  hundredSignals(signal) {
    let left = 100;
    process.on(signal, () => { console.log('handled'); if (--left === 0) process.exit(); });
    setInterval(() => {}, 1000);
    ready();
  },
  handlerOff(signal) {
    const listener = () => console.log('handled');
    process.on(signal, listener);
    process.off(signal, listener);
    setInterval(() => {}, 1000);
    ready();
  },

  workers() {
    const { Worker } = require('worker_threads');
    const ends = [
      '',
      'process.exit(2)',
      'setTimeout(() => {}, 3)',
      'throw new Error("in a worker")',
      'require("fs").readFileSync(__filename === "[worker eval]" ? process.execPath : __filename, {length: 1}).length',
    ];
    let left = ends.length + 1;
    const done = () => { if (--left === 0) console.log('all ended'); };
    for (const source of ends) {
      const worker = new Worker(source, { eval: true });
      worker.on('error', () => {});
      worker.on('exit', done);
    }
    const endless = new Worker('require("worker_threads").parentPort.postMessage(1); for (;;);', { eval: true });
    endless.on('message', () => endless.terminate());
    endless.on('exit', done);
  },
  workerAlive() {  // the main thread ends while a worker is busy
    const { Worker } = require('worker_threads');
    const worker = new Worker('require("worker_threads").parentPort.postMessage(1); for (;;);', { eval: true });
    worker.on('message', () => process.exit(4));
  },

  collections() {
    const { PerformanceObserver, constants } = require('perf_hooks');
    const kinds = { [constants.NODE_PERFORMANCE_GC_MINOR]: 'minor', [constants.NODE_PERFORMANCE_GC_MAJOR]: 'major' };
    const seen = { minor: 0, major: 0 };
    const count = (entries) => {
      for (const entry of entries) seen[kinds[entry.detail ? entry.detail.kind : entry.kind]] += 1;
    };
    const observer = new PerformanceObserver((list) => count(list.getEntries()));
    observer.observe({ entryTypes: ['gc'] });
    let kept = [];
    for (let i = 0; i < 400_000; ++i) kept.push({ i, text: 'x' + i });
    kept = null;
    global.gc();
    setTimeout(() => {
      count(observer.takeRecords());
      console.log(JSON.stringify(seen));
      process.reallyExit(0);
    }, 50);
  },
  statistics() {
    setTimeout(() => {
      const heap = require('v8').getHeapStatistics();
      console.log(JSON.stringify({ limit: heap.heap_size_limit, contexts: heap.number_of_native_contexts }));
    }, 120);
  },
  wrappers() {  // 50 deflate states of 256 KiB that only node's clean-up frees
    const zlib = require('zlib');
    globalThis.kept = Array.from({ length: 50 }, () => zlib.createDeflate());
    for (const deflate of kept) deflate.write('x');  // the state is made by the first write
  },

  forks() { fork(child('forked')[0], ['forked'], { env: {} }).on('exit', (code) => console.log('child', code)); },
  forked() { process.exit(6); },
  spawnsEmpty() {
    const result = spawnSync(process.execPath, child('exit'), { env: {} });
    console.log(result.status);
    execFile(process.execPath, child('exit'), { env: { LD_PRELOAD: '' } }, (error) => console.log(error.code));
  },
  spawnsShell() { console.log(execFileSync('sh', ['-c', `"${process.execPath}" "${child('timer').join('" "')}"`]).toString()); },
  spawnsMissing() { console.log(spawnSync('/no/such/program', [], { env: {} }).error.code); },
  cluster() {
    const cluster = require('cluster');
    if (!cluster.isPrimary) return process.exit(8);
    cluster.setupPrimary({ args: ['cluster'] });
    let left = 2;
    for (let i = 0; i < 2; ++i) cluster.fork();
    cluster.on('exit', (worker, code) => { if (--left === 0) console.log('ended', code); });
  },
  signalledChild() {
    const server = spawn(process.execPath, child('server'), { stdio: ['ignore', 'pipe', 'inherit'] });
    server.stdout.once('data', () => server.kill('SIGTERM'));
    server.on('exit', (code, signal) => console.log(code, signal));
  },
  environment() {
    const names = Object.keys(process.env).filter((name) => /NODELEAK|LD_PRELOAD/.test(name)).sort();
    console.log(names.join(' '));
    process.stdout.write(`${process.env.LD_PRELOAD}\n`);
  },
  environmentOfChild(preload) {
    process.stdout.write(execFileSync(process.execPath, child('environment'),
        { env: preload === undefined ? {} : { LD_PRELOAD: preload } }));
  },
};
programs[what](process.argv[3]);
