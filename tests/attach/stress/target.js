// A process that does everything at once that an attach could trip over, and checks all of its own results: HTTP
// requests, worker threads that come and go, programs started in every way, modules and add-ons loaded again and
// again, WebAssembly, a signal each millisecond, and as many busy threads as there are processors.
//
//   node target.js [ADDON.node]
//
// Says "ready"; when its stdin ends, it prints its counts as JSON and ends with 0 if nothing was wrong.
const childProcess = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const zlib = require('zlib');
const { Worker } = require('worker_threads');

if (process.argv[2] === 'child') {
  process.send({ answer: 6 * 7 }, () => process.disconnect());
} else {
  main(process.argv[2]);
}

function main(addon) {
  const counts = { good: 0, bad: 0, workers: 0, programs: 0, forks: 0, modules: 0, addons: 0, wasm: 0, signals: 0,
    slowest: 0 };
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'attach-stress-'));
  const ends = [];
  let ending = false;

  function expect(name, right, what) {
    if (right) return ++counts[name];
    ++counts.bad;
    console.error(`wrong ${name}: ${what}`);
  }
  // Again and again, until the end.
  function repeat(ms, step) {
    const next = () => { if (!ending) step(() => setTimeout(next, ms)); };
    next();
  }
  const digest = (text) => crypto.createHash('sha256').update(text).digest('hex');

  const server = http.createServer((request, response) => {
    const body = Buffer.allocUnsafeSlow(4096 + request.url.length * 100).fill(1);
    zlib.gzip(body, (error, zipped) => zlib.gunzip(zipped, (error2, back) => {
      response.statusCode = error || error2 || !back.equals(body) ? 500 : 200;
      response.end(digest(request.url));
    }));
  });
  function load(port, agent, number) {
    if (ending) return;
    const url = `/${number}`;
    const begin = Date.now();
    http.get({ port, agent, path: url }, (response) => {
      let text = '';
      response.on('data', (data) => { text += data; });
      response.on('end', () => {
        counts.slowest = Math.max(counts.slowest, Date.now() - begin);
        expect('good', response.statusCode === 200 && text === digest(url), text);
        setImmediate(load, port, agent, number + 1);
      });
    }).on('error', (error) => expect('good', ending, error));
  }

  function churnWorkers() {
    const source = 'const a = []; for (let i = 0; i < 300; i++) a.push(Buffer.alloc(3001, i));' +
      'require("worker_threads").parentPort.postMessage(a.reduce((sum, b) => sum + b.length, 0))';
    repeat(60, (again) => {
      const worker = new Worker(source, { eval: true });
      worker.on('message', (sum) => expect('workers', sum === 900300, sum));
      worker.on('error', (error) => expect('workers', false, error));
      worker.on('exit', again);
    });
  }
  function startPrograms() {
    repeat(50, (again) => childProcess.execFile('/bin/echo', ['hello'], (error, out) => {
      expect('programs', !error && out === 'hello\n', error || out);
      again();
    }));
    repeat(170, (again) => {
      const result = childProcess.spawnSync('/bin/sh', ['-c', 'echo sync; exit 3']);
      expect('programs', result.status === 3 && String(result.stdout) === 'sync\n', result.status);
      again();
    });
    repeat(900, (again) => {
      const child = childProcess.fork(__filename, ['child']);
      let answer, status, awaited = 2;
      // A message may come later than the exit, but not later than the end of the channel.
      const ended = () => {
        if (--awaited !== 0) return;
        expect('forks', status === '0 null' && answer === 42, `${status} ${answer}`);
        again();
      };
      child.on('message', (message) => { ({ answer } = message); });
      child.on('exit', (...how) => { status = how.map(String).join(' '); ended(); });
      child.on('disconnect', ended);
    });
  }
  function loadModules() {
    let number = 0;
    repeat(20, (again) => {
      const file = path.join(folder, `module${++number % 50}.js`);
      fs.writeFileSync(file, `exports.value = [${number}].map((x) => x * 2)[0];`);
      delete require.cache[file];
      expect('modules', require(file).value === number * 2, number);
      again();
    });
    if (addon === undefined) return;
    repeat(200, (again) => {
      // A new name each time, so that the dynamic linker has work to do; forty of them, so that there is an end.
      const copy = path.join(folder, `addon${counts.addons % 40}.node`);
      if (!fs.existsSync(copy)) fs.copyFileSync(addon, copy);
      const module = { exports: {} };
      try {
        process.dlopen(module, copy);
        expect('addons', true);
      } catch (error) {
        expect('addons', /self-regist/.test(error.message), error);
      }
      again();
    });
  }
  function runWasm() {
    // (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
    const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3,
      97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]);
    repeat(30, (again) => {
      const memory = new WebAssembly.Memory({ initial: 2, maximum: 20 });
      memory.grow(3);
      const { add } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
      expect('wasm', add(memory.buffer.byteLength / 65536, 37) === 42, memory.buffer.byteLength);
      again();
    });
  }
  function takeSignals() {
    process.on('SIGUSR2', () => { ++counts.signals; });
    const source = 'setInterval(() => process.kill(process.pid, "SIGUSR2"), 1)';
    ends.push(new Worker(source, { eval: true }));
  }
  function useProcessors() {
    const source = `let bad = 0; for (;;) {
      const a = new Array(1000); for (let i = 0; i < 1000; i++) a[i] = { i, s: "x" + i };
      const f = Float64Array.from({ length: 1000 }, (_, i) => Math.sqrt(i));
      if (a.reduce((n, o) => n + o.i, 0) !== 499500 || Math.abs(f.reduce((n, x) => n + x, 0) - 21065.83) > 0.01)
        process.exit(99);
    }`;
    for (let i = 0; i < os.cpus().length; ++i) {
      const worker = new Worker(source, { eval: true });
      worker.on('exit', () => expect('workers', ending, 'a busy worker ended'));
      ends.push(worker);
    }
  }

  server.listen(0, '127.0.0.1', () => {
    const agent = new http.Agent({ keepAlive: true });
    for (let i = 0; i < 4; i++) load(server.address().port, agent, i * 1e6);
    churnWorkers();
    startPrograms();
    loadModules();
    runWasm();
    takeSignals();
    useProcessors();
    console.log('ready');
  });
  process.stdin.on('end', () => {
    ending = true;
    setTimeout(async () => {
      await Promise.all(ends.map((worker) => worker.terminate()));
      fs.rmSync(folder, { recursive: true });
      console.log(JSON.stringify(counts));
      process.exit(counts.bad === 0 ? 0 : 1);
    }, 1500);
  }).resume();
}
