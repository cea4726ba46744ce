// Stacks as we see them against what V8 says itself (CallSites of Error.captureStackTrace, taken in a process of its own
// that nobody watches), under the node that runs this file. Exit status 1 when too few of the frames are exact.
//   compare.mjs --harness=FILE    what preload/v8 resolves, printed from inside node
//   compare.mjs --nodeleak=FILE   what the tool reports: recorded by the real shim, read from the JSON report
//   [--verbose=all] [--minimum=0.999]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const options = Object.fromEntries(process.argv.slice(2).map((a) => a.replace(/^--/, '').split(/=(.*)/s)));
const programs = path.join(path.dirname(fileURLToPath(import.meta.url)), 'programs');
const BASE = 1000000;  // record.cjs
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'nodeleak-frames-'));
process.on('exit', () => fs.rmSync(work, { recursive: true, force: true }));

function execute(command, env = {}) {
  // What malloc hands out is full of rubbish, as in a process that has run for a while.
  const inherited = { PATH: process.env.PATH, HOME: work, MALLOC_PERTURB_: '165' };
  if (process.env.LD_LIBRARY_PATH) inherited.LD_LIBRARY_PATH = process.env.LD_LIBRARY_PATH;
  const result = spawnSync(command[0], command.slice(1),
    { env: { ...inherited, ...env }, cwd: work, encoding: 'utf8', timeout: 100000, maxBuffer: 1 << 28 });
  if (result.status === 0) return result.stdout;
  console.log(`${command.join(' ')}: status ${result.status} signal ${result.signal}\n${result.stderr.slice(0, 2000)}`);
  return process.exit(1);
}
const commandOf = (program) => [process.execPath, path.join(programs, program)];

function readTruth(file) {
  const cases = new Map();
  for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
    const { id, kind, frames } = JSON.parse(line);
    if (!cases.has(id)) cases.set(id, { kind, frames: frames.filter((f) => !f.async).map(truthFrame) });
  }
  return cases;
}
const asPath = (file) => (file?.startsWith('file://') ? fileURLToPath(file) : file ?? '');
function truthFrame(f) {
  return { name: f.name ?? '', file: asPath(f.file), line: f.line ?? 0, column: f.column ?? 0, eval: f.eval };
}

function watchWithHarness(program, loops) {
  const file = path.join(work, 'events');
  execute(commandOf(program), { LD_PRELOAD: options.harness, HARNESS_OUT: file, LOOPS: loops });
  const cases = new Map();
  let frames = null;
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    const [letter, ...fields] = line.split('\t');
    if (letter === 'EVENT') {
      frames = [];
      const id = +fields[0] - BASE;
      if (id > 0 && id < 1000 && !cases.has(id)) cases.set(id, [frames]);
    } else if ('JBWM'.includes(letter) && letter && frames) {
      frames.push(ourFrame(letter, fields));
    }
  }
  return cases;
}
function ourFrame(letter, [name, file, line, column, tier, inlined, where, , , , value]) {
  if (letter === 'M') return { name: `marker ${name}`, file: '?', line: 0, column: 0, letter };
  if (letter === 'W') return { name, file, line: 1, column: +value + 1, letter };
  return { name, file, line: +line, column: +column, letter, tier: +tier, where,
    inlined: inlined === '1' };
}

// All live blocks of a case's stack are the case's: the warm-up rounds allocated there, too, but freed.
function watchWithNodeleak(program, loops) {
  const recording = path.join(work, 'recording'), json = path.join(work, 'report.json');
  execute([options.nodeleak, '-q', '-o', recording, '--', ...commandOf(program)], { LOOPS: loops });
  execute([options.nodeleak, 'report', '-q', '--group-by=stack', `--report=${json}`, recording]);
  const cases = new Map();
  const report = JSON.parse(fs.readFileSync(json, 'utf8'));
  for (const { name, state, why } of report.capabilities) {
    if (state !== 'full') console.log(`  capability ${name}: ${state} ${why}`);
  }
  for (const { liveBytes, liveBlocks, frames } of report.groups.flatMap((group) => group.stacks)) {
    total.broken += frames.some((f) => f.type === 'marker' && !f.function.includes('left out')) ? liveBlocks : 0;
    total.lineless += frames.some((f) => f.type === 'js' && f.module !== 'builtin' && !f.line) ? liveBlocks : 0;
    total.blocks += liveBlocks;
    const id = liveBytes / liveBlocks - BASE;
    if (id > 0 && id < 1000) cases.set(id, [...cases.get(id) ?? [], frames.flatMap(reportedFrame)]);
  }
  return cases;
}
function reportedFrame({ type, function: shown, file, line, column, module, inlined }) {
  const name = shown === '(anonymous)' ? '' : shown;
  if (type === 'js') return [{ name, file, line, column, letter: module === 'builtin' ? 'B' : 'J', where: module, inlined }];
  if (type === 'wasm') return [{ name, file, line, column, letter: 'W' }];
  return type === 'marker' ? [{ name: `marker ${shown}`, file: '?', line: 0, column: 0, letter: 'M' }] : [];
}

// The frames above the place in question are not in the truth.
function trim(frames, { kind, frames: truth }) {
  const outer = kind === 'take'
    ? frames.findIndex((f) => f.name === 'take' && f.file.endsWith('record.cjs')) + 1
    : frames.findIndex((f) => f.file === truth[0].file);
  return outer < 0 ? [] : frames.slice(outer);
}

// Longest common subsequence of equal frames, so that one odd frame does not spoil the rest.
function align(truth, ours, same) {
  const table = Array.from({ length: truth.length + 1 }, () => new Array(ours.length + 1).fill(0));
  for (let i = truth.length - 1; i >= 0; i--) {
    for (let j = ours.length - 1; j >= 0; j--) {
      table[i][j] = same(truth[i], ours[j], i) ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const lost = [], extra = [];
  let i = 0, j = 0;
  while (i < truth.length || j < ours.length) {
    if (i < truth.length && j < ours.length && same(truth[i], ours[j], i)) i++, j++;
    else if (j < ours.length && (i === truth.length || table[i][j + 1] >= table[i + 1][j])) extra.push(ours[j++]);
    else lost.push(truth[i++]);
  }
  return { lost, extra };
}

const show = (f) => `${f.name || '(anonymous)'} ${f.file}:${f.line}:${f.column}${f.tier ? ` tier ${f.tier}` : ''}`;
const total = { cases: 0, frames: 0, exact: 0, wrong: 0, without: 0, tiers: {}, blocks: 0, broken: 0, lineless: 0 };

// `stacks` is a list: some cases run twice, from different places, and a report has no order.
function compareCase(id, expected, stacks) {
  total.cases++;
  if (!stacks) {
    total.without++;
    console.log(`  case ${id}: no event`);
    return;
  }
  // mark() stands beside the call that allocates: only its column may differ.
  const column = (t, o, i) => t.column === o.column || (expected.kind === 'mark' && i === 0);
  const exact = (t, o, i) => t.name === o.name && t.file === o.file && t.line === o.line && column(t, o, i);
  const tries = stacks.map((frames) => trim(frames, expected)).map((ours) => ({ ours, ...align(expected.frames, ours, exact) }));
  const { ours, lost, extra } = tries.reduce((a, b) => (b.lost.length < a.lost.length ? b : a));
  const surprises = extra.filter((f) => f.letter !== 'B');  // builtins that V8 hides are no mistake
  for (const f of ours) total.tiers[f.tier] = (total.tiers[f.tier] ?? 0) + 1;
  total.frames += expected.frames.length;
  total.exact += expected.frames.length - lost.length;
  total.wrong += surprises.length;
  if (lost.length + surprises.length || options.verbose === 'all') {
    console.log(`  case ${id}:`);
    for (const f of lost) console.log(`    V8 says  ${show(f)}`);
    for (const f of surprises) console.log(`    we say   ${show(f)}`);
  }
  for (const [i, t] of expected.frames.entries()) {
    if (t.eval && ours[i]?.where === '') console.log(`  case ${id}: eval code without its origin`);
  }
}

const watch = options.nodeleak ? watchWithNodeleak : watchWithHarness;
const runs = options.nodeleak  // 20000 loops are 20 million allocations
  ? [['mixed.cjs', 0], ['names.cjs', 1], ['names.cjs', 3000], ['hot.cjs', 150], ['hot.cjs', 2500]]
  : [['mixed.cjs', 0], ['names.cjs', 1], ['hot.cjs', 60], ['hot.cjs', 600], ['hot.cjs', 20000]];
for (const [program, loops] of runs) {
  const truthFile = path.join(work, 'truth');
  execute(commandOf(program), { TRUTH: truthFile, LOOPS: 1 });
  const events = watch(program, loops);
  const before = { ...total };
  for (const [id, expected] of readTruth(truthFile)) compareCase(id, expected, events.get(id));
  console.log(`${program}${loops ? ` ${loops} loops` : ''}: ${total.exact - before.exact}/${total.frames - before.frames} frames ` +
    `exact in ${total.cases - before.cases} cases, ${total.wrong - before.wrong} surplus`);
  fs.rmSync(truthFile);
}
const share = total.exact / total.frames;
console.log(`total: ${total.exact}/${total.frames} = ${(100 * share).toFixed(2)} %, ${total.without} cases without event, ` +
  `tiers (unknown, interpreted, baseline, maglev, turbofan) ${[0, 1, 2, 3, 4].map((t) => total.tiers[t] ?? 0)}`);
// Of every block that the process had, not only of the cases': the whole stack, and a line for every JavaScript frame.
// Excepted is the one function that V8 moves into another tier while it allocates a list of its own.
if (options.nodeleak) {
  console.log(`${total.broken} blocks with a broken stack, ${total.lineless} with an unknown line, of ${total.blocks}`);
}
const whole = total.broken === 0 && total.lineless <= 2 * runs.length;
process.exit(share >= +(options.minimum ?? 0.999) && total.without <= 1 && whole ? 0 : 1);
