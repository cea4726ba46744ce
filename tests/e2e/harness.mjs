// What the drivers of this folder share: programs in a folder of their own, run bare or under nodeleak, and reports
// as objects. A driver ends with `await run({...})`: each claim runs, all failures are shown, one makes the exit 1.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export const NODELEAK = path.resolve(process.argv[2]);
export const NODE = process.execPath;
export const MAJOR = Number(process.versions.node.split('.')[0]);
export const SKIPPED = 77;            // ctest: SKIP_RETURN_CODE
const GRACE_MS = 60_000;              // for one program; a hang is a failure, not a wait
const OUTPUT_BYTES = 64 << 20;

export const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'nodeleak-e2e-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));

// Writes a file of the test's folder and returns its path.
export function file(name, text) {
  const target = path.join(folder, name);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.writeFileSync(target, text);
  return target;
}

// The line and column (1-based) of the n-th `needle` in a file: where V8 will say the call is.
export function positionOf(target, needle, occurrence = 1) {
  const text = fs.readFileSync(target, 'utf8');
  let at = -1;
  for (let i = 0; i < occurrence; ++i) {
    at = text.indexOf(needle, at + 1);
    assert(at >= 0, `${target} has no ${needle}`);
  }
  const before = text.slice(0, at).split('\n');
  return { line: before.length, column: before.at(-1).length + 1 };
}

// Runs a command to its end.
export function execute(command, options = {}) {
  const { input = '', env = {}, cwd = folder } = options;
  const result = child_process.spawnSync(command[0], command.slice(1), {
    cwd, input, env: { ...process.env, ...env }, encoding: 'utf8', timeout: options.timeout ?? GRACE_MS,
    killSignal: 'SIGKILL', maxBuffer: OUTPUT_BYTES, stdio: options.stdio,
  });
  if (result.error?.code === 'ETIMEDOUT') throw new Error(`${command.join(' ')} hangs; it said: ${result.stderr}`);
  if (result.error) throw result.error;
  return { status: result.status, signal: result.signal, stdout: result.stdout, stderr: result.stderr };
}

export const nodeleak = (args, options) => execute([NODELEAK, ...args], options);

let recordings = 0;
export const newRecording = () => path.join(folder, `recording-${++recordings}.rec`);

// The whole report of a recording, as an object.
export function report(recording, ...options) {
  const result = nodeleak(['report', '--format=json', ...options, recording]);
  assert.strictEqual(result.status, 0, result.stderr);
  return JSON.parse(result.stdout);
}

// Runs a command under us, quietly; the report and what the command did.
export function record(command, options = {}) {
  const recording = newRecording();
  const result = nodeleak(['--quiet', `--output=${recording}`, ...(options.flags ?? []), '--', ...command], options);
  return { ...result, recording, report: report(recording) };
}

// Runs the tool without blocking this process: it may be the load, too, and its clocks go on.
export function nodeleakLater(args) {
  const child = child_process.spawn(NODELEAK, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '', stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => { stdout += chunk; });
  child.stderr.setEncoding('utf8').on('data', (chunk) => { stderr += chunk; });
  return { child, result: new Promise((done) => child.on('close', (status, signal) => done({ status, signal, stdout, stderr }))) };
}

// Starts a command under us; the caller talks to it by pipes.
export function start(command, options = {}) {
  const recording = newRecording();
  const child = child_process.spawn(NODELEAK, ['--quiet', `--output=${recording}`, ...(options.flags ?? []), '--', ...command],
    { cwd: folder, stdio: ['pipe', 'pipe', 'ignore'], ...options });
  return { child, recording, ended: new Promise((done) => child.on('close', (status, signal) => done({ status, signal }))) };
}

// The first line that a child writes.
export function firstLine(child) {
  return new Promise((done, fail) => {
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      if (text.includes('\n')) done(text.slice(0, text.indexOf('\n')));
    });
    child.on('close', () => fail(new Error(`it ended before its first line, after: ${text}`)));
  });
}

export const groupsOf = (what, site) => what.groups.filter((g) => g.site?.function === site);

// Bytes and blocks outstanding under one JavaScript function, of one kind or of all.
export function outstanding(what, site, kind) {
  const groups = groupsOf(what, site).filter((g) => kind === undefined || g.kind === kind);
  return { bytes: sum(groups, 'liveBytes'), blocks: sum(groups, 'liveBlocks') };
}

export const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);

export const have = (command) =>
  child_process.spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0;

export const findLibrary = (name) => ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib']
  .map((directory) => `${directory}/${name}`).find((candidate) => fs.existsSync(candidate));

// Compiles C; the test's own flags come last.
export function compile(source, output, ...flags) {
  const target = path.join(folder, output);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  const result = execute([process.env.CC ?? 'gcc', '-g', '-O1', '-o', target, source, ...flags]);
  assert.strictEqual(result.status, 0, result.stderr);
  return target;
}

class Skip extends Error {}
export const skip = (why) => { throw new Skip(why); };

// Runs claims ({'name': function}) one after the other; an argument after the nodeleak binary picks by name.
export async function run(claims) {
  const only = process.argv[3];
  let failures = 0;
  let ran = 0;
  for (const [name, claim] of Object.entries(claims)) {
    if (only && !name.includes(only)) continue;
    const begin = Date.now();
    try {
      await claim();
      ran += 1;
      console.log(`ok      ${name} (${Date.now() - begin} ms)`);
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skipped ${name}: ${error.message}`);
        continue;
      }
      failures += 1;
      console.log(`FAILED  ${name} (${Date.now() - begin} ms)\n${String(error.stack).replace(/^/gm, '        ')}`);
    }
  }
  process.exitCode = failures > 0 ? 1 : ran === 0 ? SKIPPED : 0;
}
