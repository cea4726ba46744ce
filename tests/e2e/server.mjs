// A server that leaks nothing: the recording stops growing, whatever passes through.
import assert from 'node:assert';
import fs from 'node:fs';
import { NODE, file, firstLine, outstanding, report, run, start } from './harness.mjs';

// The first half is long enough for V8 to have compiled what it will: what it allocates meanwhile is new to the recording.
const REQUESTS = 40_000;

await run({
  async 'a recording of a server does not grow with its requests'() {
    const program = file('server.js', `
      const http = require('http');
      const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
      const server = http.createServer((request, response) => {
        let bytes = 0;
        request.on('data', (chunk) => { bytes += chunk.length; });
        request.on('end', () => response.end(Buffer.alloc(3001 + bytes)));
      });
      const one = (port) => new Promise((done, fail) => {
        const request = http.request({ port, agent, method: 'POST' }, (response) => {
          response.on('data', () => {}).on('end', done);
        });
        request.on('error', fail);
        request.end('x'.repeat(101));
      });
      const wait = () => new Promise((done) => process.stdin.once('data', done));
      server.listen(0, async () => {
        const { port } = server.address();
        const some = async (count) => { for (let i = 0; i < count; i++) await one(port); };
        for (const half of ['half', 'all']) {
          await Promise.all(Array.from({ length: 8 }, () => some(${REQUESTS / 16})));
          console.log(half);
          if (half === 'half') await wait();
        }
        agent.destroy();
        server.close();
        process.stdin.destroy();
      });`);
    const { child, recording, ended } = start([NODE, program]);
    const watch = await firstLine(child);
    assert.strictEqual(watch, 'half');
    const half = report(recording);
    const halfBytes = fs.statSync(recording).size;
    child.stdin.write('go on\n');
    assert.deepStrictEqual(await ended, { status: 0, signal: null });
    const all = report(recording);
    const allBytes = fs.statSync(recording).size;
    console.log(`        ${halfBytes} then ${allBytes} bytes; ${half.totals.stacks} then ${all.totals.stacks} stacks; ` +
                `${half.totals.liveBytes} then ${all.totals.liveBytes} live`);
    // Code becomes optimized and some paths are met late: a tenth more stacks, not twice as many.
    assert(all.totals.stacks <= half.totals.stacks * 1.15 + 300, 'stacks grow with the requests');
    // Tables double; checkpoints (at most 64 of them) follow the time that the machine takes, not the requests.
    assert(allBytes <= halfBytes * 2 + (1 << 20), 'the file grows with the requests');
    assert.deepStrictEqual(all.totals.lost, { blocks: 0, stacks: 0, bytes: 0 });
    // V8 itself still makes code in a run of a few seconds.
    const growing = all.groups.filter((g) => g.verdict === 'growing' && !g.kind.startsWith('v8-'));
    assert.deepStrictEqual(growing.map((g) => [g.kind, g.site, g.origin?.function, g.liveBytes, g.evidence]), []);
    assert(outstanding(all, '(anonymous)', 'array-buffer').bytes < 1 << 20);
  },
});
