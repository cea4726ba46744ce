// Another allocator preloaded beside us: the program works as without us, and what it allocates is seen, wherever the
// user's LD_PRELOAD is set and in both orders.
import assert from 'node:assert';
import fs from 'node:fs';
import path from 'node:path';
import { NODE, NODELEAK, compile, execute, file, findLibrary, folder, nodeleak, outstanding, report, run, skip } from './harness.mjs';

const CXX = process.env.NODELEAK_E2E_CXX;
const SHIM = path.join(path.dirname(fs.realpathSync(NODELEAK)), 'libnodeleak-preload.so');
const ALLOCATORS = { jemalloc: 'libjemalloc.so.2', mimalloc: 'libmimalloc.so.2', tcmalloc: 'libtcmalloc_minimal.so.4' };
const KEPT = { keep_new: [70010, 10], keep_nothrow: [30010, 10], keep_aligned: [6400, 10] };

const program = file('beside.js', `
  const kept = globalThis.kept = [];
  function hold() { for (let i = 0; i < 3; i++) kept.push(Buffer.alloc(50021)); }
  hold();
  console.log('ran');`);

// How a user says it. Each is a command that runs `command` with the allocator.
const WAYS = {
  'around nodeleak': (library, command) => ({ command, env: { LD_PRELOAD: library } }),
  'by env': (library, command) => ({ command: ['env', `LD_PRELOAD=${library}`, ...command] }),
  'by a shell, before the shim': (library, command) =>
    ({ command: ['sh', '-c', 'LD_PRELOAD="$0:$LD_PRELOAD" "$@"; exit $?', library, ...command] }),
  'by a shell, behind the shim': (library, command) =>
    ({ command: ['sh', '-c', 'LD_PRELOAD="$LD_PRELOAD $0" "$@"; exit $?', library, ...command] }),
  'by name of the shim': (library, command) => ({ command: ['env', `LD_PRELOAD=${library}:${SHIM}`, ...command] }),
};

let directories = 0;
// In a directory of its own: what ran last has the recording there.
function recordIn(command, env) {
  const cwd = path.join(folder, `allocator-${++directories}`);
  fs.mkdirSync(cwd);
  const result = nodeleak(['--quiet', ...(command[0] === 'sh' ? ['--children=all'] : []), '--', ...command], { cwd, env });
  const recordings = fs.readdirSync(cwd).filter((name) => !/\.(sh|dash|env)\./.test(name));
  assert.strictEqual(recordings.length, 1, `${command.join(' ')}: ${recordings.join()} ${result.stderr}`);
  return { ...result, report: report(path.join(cwd, recordings[0])) };
}

const keptBy = (what) => Object.fromEntries(Object.keys(KEPT).map((name) => {
  const groups = what.groups.filter((g) => g.origin?.function === name);
  return [name, [groups.reduce((n, g) => n + g.liveBytes, 0), groups.reduce((n, g) => n + g.liveBlocks, 0)]];
}));

const allocationsOf = (what) => what.capabilities.find((c) => c.name === 'allocations');

function checkWay(library, way) {
  const cxx = way(library, [CXX, 'quiet']);
  const native = recordIn(cxx.command, cxx.env);
  assert.deepStrictEqual([native.status, keptBy(native.report)], [0, KEPT]);
  assert(!native.report.groups.some((g) => g.origin?.function === 'give_back' && g.liveBytes > 0), 'a delete was not seen');
  const node = way(library, [NODE, program]);
  const script = recordIn(node.command, node.env);
  assert.deepStrictEqual([script.status, script.stdout], [0, 'ran\n'], script.stderr);
  assert.deepStrictEqual(outstanding(script.report, 'hold', 'array-buffer'), { bytes: 150063, blocks: 3 });
  assert(script.report.totals.liveBlocks > 2000, 'what node itself makes by operator new');
  for (const { report: what } of [native, script]) assert.strictEqual(allocationsOf(what).state, 'full');
}

const claims = {};
for (const [name, soname] of Object.entries(ALLOCATORS))
  for (const [way, command] of Object.entries(WAYS))
    claims[`${name} ${way}`] = () => checkWay(findLibrary(soname) ?? skip(`no ${soname}`), command);

await run({
  ...claims,

  'no allocator beside us'() {
    const { status, stdout, report: what } = recordIn([CXX]);
    assert.deepStrictEqual([status, keptBy(what)], [0, KEPT]);
    assert.strictEqual(stdout, execute([CXX]).stdout);
    for (const each of [what, recordIn([NODE, program]).report]) assert.strictEqual(allocationsOf(each).state, 'full');
  },

  'memory that cannot be had'() {
    for (const soname of [ALLOCATORS.jemalloc, ALLOCATORS.tcmalloc]) {
      const library = findLibrary(soname) ?? skip(`no ${soname}`);
      const env = { LD_PRELOAD: library };
      assert.deepStrictEqual(recordIn([CXX], env).stdout, execute([CXX], { env }).stdout, soname);
    }
  },

  // Only a program that we are not in can start another one so.
  'an allocator that really comes first is said'() {
    const library = findLibrary(ALLOCATORS.jemalloc) ?? skip('no jemalloc');
    const source = file('first.c', '#include <stdlib.h>\n#include <unistd.h>\n' +
      'int main(int n, char** a) { setenv("LD_PRELOAD", a[1], 1); execv(a[2], a + 2); return 1; }\n');
    const first = compile(source, 'first', '-static');
    const { status, stdout, report: what } = recordIn(['env', first, `${library}:${SHIM}`, NODE, program]);
    assert.deepStrictEqual([status, stdout], [0, 'ran\n']);
    const seen = allocationsOf(what);
    assert.strictEqual(seen.state, 'degraded');
    assert.match(seen.why, /another allocator/);
  },
});
