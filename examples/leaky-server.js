// A small HTTP server with two leaks that no heap snapshot shows, because the memory is outside the JavaScript heap:
//
//   1. `rememberAnswer` keeps every rendered page in a Map that nobody ever empties: Buffers (kind array-buffer).
//   2. `compressorFor` keeps a gzip stream per session and never closes it: each holds some 260 KB of zlib's own
//      tables (kind zlib), while its JavaScript object is a few hundred bytes.
//
// One cache is fine: `recentPages` keeps the last 50 pages, so its level stays flat.
//
//   nodeleak node examples/leaky-server.js
//
// It visits itself for about five seconds, then ends by itself.
'use strict';

const http = require('http');
const zlib = require('zlib');

const VISITORS = 600;
const VISITORS_AT_ONCE = 4;
const PAUSE_MS = 30; // between two visits of one visitor: it is a calm site
const PAGE_BYTES = 50021;

const answers = new Map(); // leak 1: the key holds the time, so no key ever comes twice
const compressors = new Map(); // leak 2
const recentPages = [];

function renderPage(visitor) {
  return Buffer.alloc(PAGE_BYTES, `<p>Hello, visitor ${visitor}</p>`);
}

function rememberAnswer(visitor, page) {
  answers.set(`${visitor}@${process.hrtime.bigint()}`, page);
}

function keepRecent(visitor) {
  recentPages.push(Buffer.alloc(20011, `recent ${visitor} `));
  if (recentPages.length > 50) recentPages.shift();
}

function compressorFor(visitor) {
  const session = `session-${Math.floor(visitor / 15)}`; // 40 sessions, one after the other
  if (!compressors.has(session)) {
    const gzip = zlib.createGzip();
    gzip.write('the first byte makes zlib allocate its tables');
    compressors.set(session, gzip);
  }
  return compressors.get(session);
}

const server = http.createServer((request, response) => {
  const visitor = Number(request.url.slice(1));
  const page = renderPage(visitor);
  rememberAnswer(visitor, page);
  keepRecent(visitor);
  compressorFor(visitor);
  response.end(page.subarray(0, 100));
});

const agent = new http.Agent({ keepAlive: true, maxSockets: VISITORS_AT_ONCE });

function visit(port, visitor) {
  return new Promise((resolve, reject) => {
    const request = http.get({ port, agent, path: `/${visitor}` }, (response) => {
      response.resume();
      response.on('end', resolve);
    });
    request.on('error', reject);
  });
}

async function visitAll(port) {
  let next = 0;
  async function visitor() {
    while (next < VISITORS) {
      await visit(port, next++);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
  await Promise.all(Array.from({ length: VISITORS_AT_ONCE }, visitor));
}

// Also keeps both caches reachable to the end, as in a server that runs on: what nothing refers to any more is garbage,
// which the full collection at the end frees and the report leaves out.
process.on('exit', () => console.log(`remembered ${answers.size} pages, ${compressors.size} sessions`));

server.listen(0, '127.0.0.1', async () => {
  console.log(`serving ${VISITORS} visitors`);
  await visitAll(server.address().port);
  console.log(`served ${VISITORS} visitors`);
  agent.destroy();
  server.close();
});
