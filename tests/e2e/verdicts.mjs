// Every program of verdict_programs.cjs gets the verdict that it deserves, and none that is innocent is ever called
// growing: at its end, and from copies of its recording made after a quarter and a half of the run.
import assert from 'node:assert';
import { fileURLToPath } from 'node:url';
import { MAJOR, NODE, firstLine, groupsOf, newRecording, nodeleakLater, run, start } from './harness.mjs';

const PROGRAMS = fileURLToPath(new URL('verdict_programs.cjs', import.meta.url));
const ADDON = process.env.NODELEAK_E2E_FINALIZERS;
const RUN_MS = 4000;
const AT_ONCE = 4;
const CUTS = [0.25, 0.5];

// At a cut without a full GC none may have run yet: then a leak is 'new', and says so. Programs that are run with gc (they collect
// twenty times) must be told apart at the half, too. `often` rows are run on every major, all of them on one, and on any
// with NODELEAK_E2E_ALL_VERDICTS in the environment.
const LEAK = { end: ['growing'] };
const BOUNDED = { end: ['bounded'] };
const STARTUP = { end: ['startup'] };
const GARBAGE = { end: ['garbage', 'bounded', 'none'] };
const ADDON_GARBAGE = { end: ['garbage', 'pending', 'bounded', 'new', 'none'] };
const ROWS = {  // `cut`: what may be said at a cut, too
  growingCache: { ...LEAK, often: true },
  slowLeakUnderChurn: { ...LEAK, often: true },
  oneInAHundred: LEAK,
  fewLargeBlocks: { ...LEAK, often: true },
  bursts: LEAK,
  waves: LEAK,
  timersNeverCleared: { ...LEAK, often: true },
  listenersNeverRemoved: LEAK,
  promisesNeverResolved: LEAK,
  zlibNeverClosed: LEAK,
  tlsSocketsKept: { ...LEAK, kind: 'openssl' },
  poolSlabsPinned: LEAK,
  addonLosesBlocks: { ...LEAK, kind: 'addon', often: true },
  addonBuffersKept: { ...LEAK, kind: 'addon', often: true },
  addonObjectsKept: { ...LEAK, kind: 'addon' },
  bufferThatGrows: { ...LEAK, cut: ['bounded', 'startup'] },
  arrayThatDoubles: { end: ['growing'], cut: ['startup', 'bounded'] },
  queueThatFills: { end: ['growing', 'bounded'], cut: ['bounded'] },  // bounded: garbage that got old may hide it
  wasmMemoryThatGrows: { ...LEAK, kind: 'wasm-memory', often: true },
  leakInAWorker: { ...LEAK, often: true },
  leakBesideAWorker: LEAK,
  leakWithoutTurns: LEAK,
  // On a busy machine old garbage may hide it.
  javaScriptHeapUnderChurn: { end: ['growing', 'new'], cut: ['bounded'], heap: true },
  javaScriptHeap: { ...LEAK, heap: true, often: true },
  variableOfAFunction: { ...LEAK, often: true },
  javaScriptHeapOfAFunction: { ...LEAK, heap: true },
  ringOfAFunction: { ...BOUNDED, often: true },
  jobsOfAFunction: { end: [...GARBAGE.end, 'startup'], often: true },  // of one of them, and no more, the variables may be there
  ring: { ...BOUNDED, often: true },
  lruAtCapacity: { ...BOUNDED, often: true },
  memoized: { ...BOUNDED, often: true },
  expiringCache: BOUNDED,
  sawtooth: { ...GARBAGE, often: true },
  tableAtStart: { ...STARTUP, often: true },
  leakThatStops: { ...STARTUP, often: true },
  garbageBeforeTheEnd: { end: [...GARBAGE.end, 'new'] },
  periodicJob: { end: [...GARBAGE.end, 'new'] },
  timersThatFire: BOUNDED,
  weakReferences: GARBAGE,
  zlibStreams: { end: [...GARBAGE.end, 'new'] },
  tlsSocketsEnd: { end: [...GARBAGE.end, 'new', 'startup'] },
  addonBuffersDropped: { ...ADDON_GARBAGE, often: true },
  addonFinalizersWork: ADDON_GARBAGE,
  addonObjectsDropped: ADDON_GARBAGE,
  workersComeAndGo: { end: [...GARBAGE.end, 'new'], often: true },
  buffersPosted: { end: [...GARBAGE.end, 'new'], often: true },
  fragmentation: BOUNDED,
  javaScriptCache: { end: ['bounded', 'new'], heap: true },
  idle: { end: ['none'] },
};
const BESIDES = ['v8-internal', 'v8-heap', 'thread-stack'];  // at a line that makes something else
const COPIED = {  // by a copy after a full GC each is told apart as at the end
  growingCache: ROWS.growingCache,
  slowLeakUnderChurn: LEAK,
  listenersNeverRemoved: LEAK,
  zlibNeverClosed: LEAK,
  addonBuffersKept: ROWS.addonBuffersKept,
  leakInAWorker: LEAK,
  ring: ROWS.ring,
  lruAtCapacity: BOUNDED,
  tableAtStart: STARTUP,
  garbageBeforeTheEnd: ROWS.garbageBeforeTheEnd,
  addonBuffersDropped: ADDON_GARBAGE,
};
const WITH_GC = {
  growingCache: LEAK,
  timersNeverCleared: LEAK,
  ring: BOUNDED,
  sawtooth: BOUNDED,
};

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function outputOf(...args) {
  const { status, stdout, stderr } = await nodeleakLater(args).result;
  if (stderr !== '') console.error(stderr);
  assert.strictEqual(status, 0);
  return stdout;
}

async function copy(recording, options) {
  const target = newRecording();
  await outputOf('snapshot', ...options, recording, '-o', target);
  return target;
}

// The recordings of one run: cut, and whole.
async function recordings(name, nodeFlags, copyOptions, cuts = CUTS) {
  const program = start([NODE, ...nodeFlags, PROGRAMS, name, String(RUN_MS), ADDON]);
  await firstLine(program.child);
  const begin = Date.now();
  const made = [];
  for (const share of cuts) {
    await sleep(Math.max(0, begin + share * RUN_MS - Date.now()));
    made.push(await copy(program.recording, copyOptions));
  }
  assert.deepStrictEqual(await program.ended, { status: 0, signal: null });
  return [...made, program.recording];
}

async function reports(...run) {
  const made = [];
  for (const recording of await recordings(...run))
    made.push(JSON.parse(await outputOf('report', '--format=json', recording)));
  return made;
}

function verdictOf(what, row) {
  if (row.heap) return what.kinds.find((k) => k.kind === 'v8-heap').verdict;
  const wanted = (kind) => row.kind === undefined ? !BESIDES.includes(kind) : kind === row.kind;
  // A group that is all garbage has nothing left; what loading an addon once allocated is not what the row is about.
  const large = (group) => group.liveBytes === 0 || group.liveBytes >= 16384;
  const groups = groupsOf(what, 'here').filter((g) => wanted(g.kind) && large(g));
  return groups.sort((a, b) => b.liveBytes - a.liveBytes)[0]?.verdict ?? 'none';
}

function growing(what) {
  const rows = [...what.groups, ...what.kinds].filter((row) => row.verdict === 'growing');
  const name = (row) => row.site?.function ?? row.origin?.function ?? 'all';
  return rows.map((row) => `${row.kind} ${name(row)} ${row.liveBytes}: ${row.evidence.join('; ')}`);
}

const why = (what) => JSON.stringify(groupsOf(what, 'here').map((g) => [g.kind, g.verdict, g.liveBytes, g.evidence]));

function checkEnd(what, row) {
  const verdict = verdictOf(what, row);
  assert(row.end.includes(verdict), `${verdict}: ${why(what)}`);
  if (!row.end.includes('growing')) assert.deepStrictEqual(growing(what), []);
  for (const group of what.groups.filter((g) => g.verdict === 'growing' && g.kind !== 'v8-heap')) {
    assert(group.bytesPerSecond > 0, JSON.stringify(group.evidence));
    assert(group.measured.until > group.measured.from && group.measured.until <= what.process.durationSeconds + 0.01);
  }
}

async function check(name, row) {
  const [quarter, half, whole] = await reports(name, [], ['--gc=off']);
  for (const cut of [quarter, half]) {
    if (row.end.includes('growing')) {
      assert(['growing', 'new', 'none', ...(row.cut ?? [])].includes(verdictOf(cut, row)), verdictOf(cut, row));
    } else {
      assert.deepStrictEqual(growing(cut), []);
    }
  }
  checkEnd(whole, row);
}

async function checkWithGc(name, row) {
  const [, half, whole] = await reports(name, ['--expose-gc'], ['--gc=off']);
  for (const what of [half, whole]) assert(row.end.includes(verdictOf(what, row)), why(what));
}

async function checkCopyAfterGc(name, row) {
  const [copied, whole] = await reports(name, [], [], [0.5]);
  for (const what of [copied, whole]) checkEnd(what, row);
}

// The runs overlap, the claims are told one after the other.
const everything = MAJOR === 22 || process.env.NODELEAK_E2E_ALL_VERDICTS !== undefined;
const jobs = [
  ...Object.entries(ROWS).filter(([, row]) => everything || row.often)
    .map(([name, row]) => [name, () => check(name, row)]),
  ...Object.entries(WITH_GC)
    .map(([name, row]) => [`${name}, collected often`, () => checkWithGc(name, row)]),
  ...Object.entries(COPIED).filter(([, row]) => everything || row.often)
    .map(([name, row]) => [`${name}, copied after a full GC`, () => checkCopyAfterGc(name, row)]),
];
const only = process.argv[3];
const waiting = jobs.filter(([name]) => only === undefined || name.includes(only));
const results = new Map(waiting.map(([name]) => {
  let settle;
  const promise = new Promise((done) => settle = done);
  return [name, { promise, settle }];
}));
async function work() {
  for (let job; (job = waiting.shift()) !== undefined;) {
    const [name, call] = job;
    results.get(name).settle(await call().then(() => null, (error) => error));
  }
}
for (let i = 0; i < AT_ONCE; ++i) work();
await run(Object.fromEntries([...results].map(([name, { promise }]) => [name, async () => {
  const error = await promise;
  if (error !== null) throw error;
}])));
