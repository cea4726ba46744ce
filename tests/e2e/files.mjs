// Reports into files and to stdout; files that are not what they should be; disks and limits that are too small.
import assert from 'node:assert';
import child_process from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { NODE, NODELEAK, execute, file, folder, newRecording, nodeleak, outstanding, record, report, run, skip } from './harness.mjs';

const program = file('app.js', 'const kept = globalThis.kept = [];\n' +
  'function hold() { for (let i = 0; i < 3; i++) kept.push(Buffer.allocUnsafeSlow(50021)); }\nhold();\n' +
  'console.log("its own words");\n');
const HELD = { bytes: 150063, blocks: 3 };

// One sentence on stderr, status 2, nothing on stdout.
function refused(what, result) {
  assert.deepStrictEqual([result.status, result.signal, result.stdout], [2, null, ''], `${what}: ${result.stderr}`);
  assert.match(result.stderr, /^nodeleak: [^\n]{10,}\n$/, what);
  assert(!/\binternal\b|INVALID_ARGUMENT|std::/.test(result.stderr), result.stderr);
}

function free(mount) {
  const { bavail, bsize } = fs.statfsSync(mount);
  return bavail * bsize;
}

// A header's fields by recording/layout.h.
const VERSION_OFFSET = 8;
const HEADER_BYTES = 8192;

await run({
  'reports into files'() {
    const [json, text] = [path.join(folder, 'x.json'), path.join(folder, 'y.txt')];
    const recording = newRecording();
    const result = nodeleak([`--report=${json}`, `--report=${text}`, '--quiet', `--output=${recording}`, NODE, program]);
    assert.deepStrictEqual([result.status, result.stdout, result.stderr], [0, 'its own words\n', '']);
    assert.deepStrictEqual(outstanding(JSON.parse(fs.readFileSync(json, 'utf8')), 'hold', 'array-buffer'), HELD);
    assert.match(fs.readFileSync(text, 'utf8'), /site +hold +app\.js:2:/);
    assert.strictEqual(fs.statSync(recording).mode & 0o777, 0o600);
  },

  'the text keeps to stderr and fits'() {
    const recording = path.join(folder, `${'long'.repeat(8)}.rec`);
    const result = nodeleak([`--output=${recording}`, NODE, program]);
    assert.strictEqual(result.stdout, 'its own words\n');
    assert(result.stderr.includes(`nodeleak report ${path.basename(recording)}`), result.stderr);
    for (const line of result.stderr.split('\n')) assert([...line].length <= 100, line);
    assert(!result.stderr.includes('\x1b'), 'colour though it is no terminal');
  },

  'JSON on stdout is only JSON'() {
    const silent = file('silent.js', 'globalThis.x = Buffer.alloc(70001)');
    const { stdout } = nodeleak(['--format=json', `--output=${newRecording()}`, NODE, silent]);
    const what = JSON.parse(stdout);
    assert.deepStrictEqual([what.schema, what.version], ['nodeleak-report', 1]);
    const again = nodeleak(['report', '--format=json', record([NODE, silent]).recording]);
    assert.strictEqual(again.stderr, '');
    JSON.parse(again.stdout);
  },

  'what is no recording is refused in one sentence'() {
    const { recording } = record([NODE, program]);
    const whole = fs.readFileSync(recording);
    const damaged = (name, change) => { const copy = Buffer.from(whole); return file(name, change(copy) ?? copy); };
    const fifo = path.join(folder, 'fifo');
    child_process.spawnSync('mkfifo', [fifo]);
    const cases = {
      missing: path.join(folder, 'missing.rec'), directory: folder, fifo,
      empty: file('empty.rec', ''), text: program, binary: NODE, device: '/dev/zero', nothing: '/dev/null',
      short: damaged('short.rec', (b) => b.subarray(0, 5000)),
      future: damaged('future.rec', (b) => { b.writeUInt32LE(99, VERSION_OFFSET); }),
      version: damaged('version.rec', (b) => { b.writeUInt32LE(0, VERSION_OFFSET); }),
    };
    for (const [what, target] of Object.entries(cases)) refused(what, nodeleak(['report', target], { timeout: 20_000 }));
    refused('no argument', nodeleak(['report']));
  },

  'a damaged recording is reported as far as it is whole'() {
    const { recording } = record([NODE, program]);
    const whole = fs.readFileSync(recording);
    const header = Buffer.from(whole).fill(0xff, 16, HEADER_BYTES);
    assert.strictEqual(nodeleak(['report', file('header.rec', header)]).signal, null);
    let random = 4711;
    for (let i = 0; i < 6; i++) {
      const copy = Buffer.from(whole.subarray(0, Math.floor(whole.length * (i + 4) / 10)));
      for (let n = 0; n < 200; n++) {
        random = (random * 1103515245 + 12345) & 0x7fffffff;
        copy[HEADER_BYTES + random % (copy.length - HEADER_BYTES)] = random & 0xff;
      }
      const result = nodeleak(['report', '--format=json', file(`cut-${i}.rec`, copy)], { timeout: 20_000 });
      assert.strictEqual(result.signal, null, `crashed on cut-${i}`);
      assert([0, 2].includes(result.status), `${result.status}: ${result.stderr}`);
      if (result.status === 2) refused(`cut-${i}`, result);
      else JSON.parse(result.stdout);
    }
  },

  'a recording never takes the place of something else'() {
    const mine = file('mine.txt', 'precious\n');
    const result = nodeleak(['--quiet', `--output=${mine}`, NODE, program]);
    assert.strictEqual(fs.readFileSync(mine, 'utf8'), 'precious\n');
    assert.match(result.stderr, /^nodeleak: [^\n]*not a recording[^\n]*\n/);
    const link = path.join(folder, 'link.rec');
    fs.symlinkSync(mine, link);
    nodeleak(['--quiet', `--output=${link}`, NODE, program]);
    assert.strictEqual(fs.readFileSync(mine, 'utf8'), 'precious\n');
    const { recording } = record([NODE, program]);
    assert.strictEqual(nodeleak(['--quiet', `--output=${recording}`, NODE, program]).status, 0);
    assert.deepStrictEqual(outstanding(report(recording), 'hold', 'array-buffer'), HELD);
  },

  'mode 0600 whatever the umask'() {
    for (const umask of ['000', '077', '777']) {
      const recording = newRecording();
      const line = `umask ${umask}; exec "$@"`;
      execute(['sh', '-c', line, 'sh', NODELEAK, '--quiet', `--output=${recording}`, NODE, '-e', '1']);
      assert.strictEqual(fs.statSync(recording).mode & 0o777, 0o600, umask);
    }
  },

  'names with percent signs'() {
    const [output, json] = [path.join(folder, '50%%-%n.rec'), path.join(folder, '50%%-%n.json')];
    assert.strictEqual(nodeleak(['--quiet', `--output=${output}`, `--report=${json}`, NODE, program]).status, 0);
    for (const name of ['50%-node.rec', '50%-node.json']) assert(fs.existsSync(path.join(folder, name)), name);
  },

  'why nothing was recorded is said once'() {
    fs.mkdirSync(path.join(folder, 'in-the-way-of-node'));  // known in the process only: a name with %
    const { stderr } = nodeleak([`--output=${path.join(folder, 'in-the-way-of-%n')}`, NODE, program]);
    assert.match(stderr, /^nodeleak: process \d+ is not recorded: [^\n]+\n$/);
  },

  'a place that cannot be written to'() {
    const result = nodeleak(['--quiet', '--output=/proc/nowhere/x.rec', NODE, program]);
    assert.match(result.stderr, /^nodeleak: [^\n]+\n/);
    assert([0, 2].includes(result.status), String(result.status));
    refused('report folder', nodeleak(['--report=/no/such/folder/x.json', NODE, program]));
    refused('report format', nodeleak(['--report=x.unheard-of', NODE, program]));
    refused('option', nodeleak(['--no-such-option', NODE, program]));
    refused('no command', nodeleak(['run']));
  },

  'output that cannot be written is an error'() {
    const { recording } = record([NODE, program]);
    for (const words of [['report', recording], ['report', '--format=json', recording], ['rss', recording], ['--help'], ['--version']]) {
      for (const stdout of ['>&-', '>/dev/full']) {
        const { status, stderr } = execute(['sh', '-c', `"$@" ${stdout}`, 'sh', NODELEAK, ...words]);
        assert.strictEqual(status, 2, `${words[0]} ${stdout}: ${stderr}`);
        assert.match(stderr, /^nodeleak: cannot write to stdout: [^\n]+\n$/);
      }
    }
    for (const [code, status] of [[0, 2], [7, 7]]) {
      const line = ['sh', '-c', '"$@" 2>&-', 'sh', NODELEAK, `--output=${newRecording()}`, NODE, '-e', `process.exit(${code})`];
      assert.strictEqual(execute(line).status, status);
    }
  },

  'a recording that may not grow'() {
    const many = file('many.js', `
      const kept = globalThis.kept = [];
      function hold(n) { kept.push(new ArrayBuffer(1001 + n % 7)); }
      for (let i = 0; i < 60000; i++) hold(i);
      console.log('unharmed', kept.length);`);
    const result = record([NODE, many], { flags: ['--max-recording=1MiB'] });
    assert.deepStrictEqual([result.status, result.stdout], [0, 'unharmed 60000\n'], result.stderr);
    assert(fs.statSync(result.recording).size <= 1 << 20, String(fs.statSync(result.recording).size));
    const { lost } = result.report.totals;
    assert(lost.blocks + lost.stacks > 1000, JSON.stringify(lost));
    assert.match(nodeleak(['report', result.recording]).stdout, /^ *! [^\n]*(--max-recording|full)/m);
  },

  'a full disk'() {
    const mount = path.join(folder, 'small-disk');
    fs.mkdirSync(mount);
    if (execute(['sh', '-c', `mount -t tmpfs -o size=1m tmpfs "${mount}" 2>/dev/null`]).status !== 0) skip('may not mount');
    try {
      const recording = path.join(mount, 'x.rec');
      const result = nodeleak(['--quiet', `--output=${recording}`, NODE, program]);
      assert.deepStrictEqual([result.status, result.stdout], [0, 'its own words\n'], result.stderr);
      assert.strictEqual(fs.existsSync(recording), true, result.stderr);
      report(recording);
      fs.writeFileSync(path.join(mount, 'rest'), Buffer.alloc(free(mount)));
      const none = nodeleak(['--quiet', `--output=${mount}/y.rec`, NODE, program]);
      assert.deepStrictEqual([none.status, none.stdout], [0, 'its own words\n'], none.stderr);
      assert.match(none.stderr, /^nodeleak: [^\n]*(room|full)[^\n]*\n/);
    } finally {
      execute(['umount', mount]);
    }
  },
});
