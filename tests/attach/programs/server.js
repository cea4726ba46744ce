// A server under change: worker threads come and go, programs are started, memory is allocated on every thread. It
// loads itself with requests and checks every answer. A line on stdin, "keep N", keeps N more buffers of a size that no
// one else has; "end" ends it. Says "ready", after each "keep" "kept", and at the end how many answers there were.
const http = require('http');
const crypto = require('crypto');
const zlib = require('zlib');
const { execFile } = require('child_process');
const { Worker } = require('worker_threads');

const counts = { good: 0, bad: 0, workers: 0, programs: 0 };
const kept = globalThis.kept = [];
let ending = false;

function digest(text) { return crypto.createHash('sha256').update(text).digest('hex'); }

const server = http.createServer((request, response) => {
  const body = Buffer.allocUnsafeSlow(4096 + request.url.length * 100).fill(1);
  zlib.gzip(body, (error) => {
    response.statusCode = error ? 500 : 200;
    response.end(digest(request.url));
  });
});

function load(port, agent, number) {
  if (ending) return;
  const url = `/${number}`;
  http.get({ port, agent, path: url }, (response) => {
    let text = '';
    response.on('data', (data) => { text += data; });
    response.on('end', () => {
      if (response.statusCode === 200 && text === digest(url)) ++counts.good;
      else ++counts.bad;
      setImmediate(load, port, agent, number + 1);
    });
  }).on('error', (error) => {
    console.error(error);
    ++counts.bad;
  });
}

function churnWorkers() {
  if (ending) return;
  const worker = new Worker('require("worker_threads").parentPort.postMessage(Buffer.alloc(3001).length)', { eval: true });
  worker.on('message', (length) => { if (length !== 3001) ++counts.bad; });
  worker.on('exit', () => { ++counts.workers; setTimeout(churnWorkers, 50); });
}

function startPrograms() {
  if (ending) return;
  execFile('/bin/echo', ['hello'], (error, stdout) => {
    if (error || stdout !== 'hello\n') ++counts.bad;
    ++counts.programs;
    setTimeout(startPrograms, 40);
  });
}

function keepSome(count) {
  for (let i = 0; i < count; i++) kept.push(Buffer.alloc(50021));
}

server.listen(0, '127.0.0.1', () => {
  const agent = new http.Agent({ keepAlive: true });
  for (let i = 0; i < 4; i++) load(server.address().port, agent, i * 1e6);
  churnWorkers();
  startPrograms();
  console.log('ready');
  require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const [word, count] = line.split(' ');
    if (word === 'keep') {
      keepSome(Number(count));
      console.log('kept');
    } else {
      ending = true;
      setTimeout(() => {
        console.log(JSON.stringify(counts));
        process.exit(counts.bad === 0 ? 0 : 1);
      }, 200);
    }
  });
});
