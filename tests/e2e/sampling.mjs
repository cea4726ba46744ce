// --sample: large blocks are exact, small ones are estimated, and the report says so.
import assert from 'node:assert';
import { NODE, file, groupsOf, record, run, sum } from './harness.mjs';

const LARGE = { size: 100_003, times: 40 };
const SMALL = { size: 3001, times: 8000 };

function program() {
  return file('sampled.js', `
    const kept = globalThis.kept = [];
    function large() { kept.push(Buffer.allocUnsafeSlow(${LARGE.size})); }
    function small() { kept.push(Buffer.allocUnsafeSlow(${SMALL.size})); }
    for (let i = 0; i < ${LARGE.times}; i++) large();
    for (let i = 0; i < ${SMALL.times}; i++) { small(); Buffer.allocUnsafeSlow(${SMALL.size}); }
    setTimeout(() => {}, 10);\n`);
}

await run({
  async 'sampled numbers are estimates that say how good they are'() {
    const all = record([NODE, program()], { flags: ['--sample=64KiB'] }).report;
    assert.deepStrictEqual(all.sampling.bytes, 65536);
    const large = groupsOf(all, 'large').filter((g) => g.kind === 'array-buffer');
    assert.strictEqual(sum(large, 'liveBytes'), LARGE.size * LARGE.times);
    assert.strictEqual(sum(large, 'liveBlocks'), LARGE.times);
    assert.strictEqual(sum(large, 'liveBytesError'), 0);
    const small = groupsOf(all, 'small').filter((g) => g.kind === 'array-buffer');
    const error = sum(small, 'liveBytesError');
    assert(error > 0 && error < 0.2 * SMALL.size * SMALL.times, `error ${error}`);
    const off = Math.abs(sum(small, 'liveBytes') - SMALL.size * SMALL.times);
    assert(off < 3 * error, `${off} off, said to be within ${error}`);  // six standard deviations
    assert.strictEqual(sum(small, 'liveBytes'), sum(small, 'liveBlocks') * SMALL.size);
  },

  async 'auto samples, too'() {
    const all = record([NODE, program()], { flags: ['--sample=auto'] }).report;
    assert.strictEqual(all.sampling.automatic, true);
    assert(all.sampling.bytes >= 32);
  },
});
