// Where the program, its children or nodeleak itself run in odd places: programs of another libc, limits, closed
// streams, folders that are gone. What is compared is what the program would have said and done without us.
import assert from 'node:assert';
import fs from 'node:fs';
import path from 'node:path';
import { NODE, NODELEAK, compile, execute, file, folder, newRecording, nodeleak, outstanding, report, run, skip } from './harness.mjs';

const NATIVE = process.env.NODELEAK_E2E_NATIVE;
const SHIM = path.join(path.dirname(fs.realpathSync(NODELEAK)), 'libnodeleak-preload.so');
const quiet = (...command) => ['--quiet', `--output=${newRecording()}`, '--', ...command];

const preloads = (name, ...flags) => compile(file('preloads.c', '#include <stdio.h>\n#include <stdlib.h>\n' +
  'int main(void) { const char* p = getenv("LD_PRELOAD"); printf("%s|%d\\n", p ? p : "none", getenv("NODELEAK_OUTPUT") != 0);' +
  ' return 0; }\n'), name, ...flags);

// What a program says of its environment when it is run by each kind of exec.
function seenBy(program, env = {}) {
  const script = file(`script-of-${path.basename(program)}`, `#!${program}\n`);
  fs.chmodSync(script, 0o755);
  const js = file('kinds.js', `
    const { spawnSync, execSync } = require('child_process');
    const [program, script] = process.argv.slice(2);
    const path = require('path');
    const PATH = path.dirname(program) + ':' + process.env.PATH;
    console.log(String(spawnSync(program).stdout).trim());
    console.log(String(spawnSync(path.basename(program), { env: { ...process.env, PATH } }).stdout).trim());
    console.log(String(spawnSync(script).stdout).trim());
    console.log(String(execSync(program)).trim());`);
  return nodeleak(quiet(NODE, js, program, script), { env }).stdout.trim().split('\n');
}

await run({
  'a program of another libc gets no preload of ours'() {
    // A glibc program that looks like one of musl: its dynamic linker goes by that name.
    const linker = path.join(folder, 'ld-musl-x86_64.so.1');
    fs.symlinkSync(fs.realpathSync('/lib64/ld-linux-x86-64.so.2'), linker);
    const musl = preloads('musl', `-Wl,--dynamic-linker=${linker}`);
    assert.deepStrictEqual(seenBy(musl), Array(4).fill('none|0'));
    const users = '/lib/x86_64-linux-gnu/libm.so.6';
    if (fs.existsSync(users)) assert.deepStrictEqual(seenBy(musl, { LD_PRELOAD: users }), Array(4).fill(`${users}|0`));
    assert.deepStrictEqual(seenBy(preloads('glibc')), Array(4).fill(`${SHIM}|1`));
    assert.deepStrictEqual(seenBy(preloads('static', '-static')), Array(4).fill(`${SHIM}|1`), 'it may start others');
  },

  'a child that cannot open the shim'() {
    if (process.getuid() !== 0) skip('not root');
    const closed = path.join(folder, 'closed');
    fs.mkdirSync(closed);
    for (const built of [NODELEAK, SHIM]) fs.copyFileSync(built, path.join(closed, path.basename(built)));
    fs.chmodSync(closed, 0o700);
    const code = 'const r = require("child_process").spawnSync("/bin/echo", ["x"], { uid: 65534 }); console.log(`${r.stdout}${r.stderr}`)';
    const result = execute([path.join(closed, path.basename(NODELEAK)), ...quiet(NODE, '-e', code)]);
    assert.deepStrictEqual([result.status, result.stdout, result.stderr], [0, 'x\n\n', '']);
  },

  'a child that is not recorded does not say so on its own stderr'() {
    const js = file('parent.js', `
      const line = 'ulimit -f 10; exec env $ENV_OF_CHILD "$0" -p 1';
      const r = require('child_process').spawnSync('sh', ['-c', line, process.execPath]);
      console.log(r.status, String(r.stdout).trim(), String(r.stderr).length);`);
    const result = nodeleak(quiet(NODE, js));
    assert.deepStrictEqual([result.status, result.stdout], [0, '0 1 0\n']);
    assert.match(result.stderr, /^nodeleak: process \d+ is not recorded: [^\n]+\n$/);
    const untold = nodeleak(quiet(NODE, js), { env: { ENV_OF_CHILD: 'NODELEAK_INDEX=/no/such/file' } });
    assert.deepStrictEqual([untold.status, untold.stdout, untold.stderr], [0, '0 1 0\n', ''], 'the launcher cannot be told');
  },

  'an environment of thousands'() {
    const count = '[Object.keys(process.env).length, !!process.env.NODELEAK_OUTPUT]';
    const code = `const env = {}; for (let i = 0; i < 5000; i++) env['V' + i] = String(i);
      console.log(String(require('child_process').execFileSync(process.execPath, ['-p', '${count}'], { env })))`;
    const result = nodeleak(quiet(NODE, '-e', code));
    assert.match(result.stdout, /^\[ 50\d\d, true \]\n/, result.stderr);
  },

  'as many open files as without us'() {
    const line = (...prefix) => execute(['bash', '-c', 'ulimit -Sn 20; exec "$@"', 'bash', ...prefix, NATIVE, 'open-all']);
    assert.strictEqual(line(NODELEAK, ...quiet()).stdout, line().stdout);
    assert.match(line().stdout, /^17 opened\n/);
  },

  'a limited address space'() {
    const line = 'ulimit -v 4000000; exec "$@"';
    const recording = newRecording();
    const code = 'console.log(/(.*) rw-s .*[.]rec/.exec(require("fs").readFileSync("/proc/self/maps", "utf8"))[1])';
    const { stdout } = execute(['bash', '-c', line, 'bash', NODELEAK, '--quiet', `--output=${recording}`, NODE, '-e', code]);
    const [start, end] = stdout.split('-').map((word) => Number.parseInt(word, 16));
    assert(end - start <= 4000000 * 1024 / 16, stdout);
    report(recording);
  },

  'a filter of system calls without fallocate'() {
    const filter = compile(file('filter.c', `
      #include <errno.h>
      #include <linux/filter.h>
      #include <linux/seccomp.h>
      #include <stddef.h>
      #include <sys/prctl.h>
      #include <sys/syscall.h>
      #include <unistd.h>
      int main(int count, char** words) {
        struct sock_filter steps[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {4, steps};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (count < 2 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 9;
        execv(words[1], words + 1);
        return 8;
      }`), 'filter');
    const js = file('filtered.js',
      'function hold() { globalThis.x = Buffer.allocUnsafeSlow(50021); } hold(); console.log(1)');
    const recording = newRecording();
    const result = nodeleak(['--quiet', `--output=${recording}`, '--', filter, NODE, js]);
    assert.deepStrictEqual([result.status, result.stdout, result.stderr], [0, '1\n', '']);
    assert.strictEqual(outstanding(report(recording), 'hold', 'array-buffer').bytes, 50021);
  },

  'our own streams closed'() {
    const json = path.join(folder, 'closed.json');
    execute(['sh', '-c', '"$@" <&- >&- 2>&-', 'sh', NODELEAK, `--report=${json}`, `--output=${newRecording()}`, '--', NODE, '-e', '1']);
    assert.strictEqual(JSON.parse(fs.readFileSync(json, 'utf8')).schema, 'nodeleak-report');
    const streams = 'const fs = require("fs"); console.log([0, 2].map((fd) => fs.readlinkSync("/proc/self/fd/" + fd)).join())';
    const line = (...prefix) => execute(['sh', '-c', '"$@" <&- 2>&-', 'sh', ...prefix, NODE, '-e', streams]).stdout;
    assert.strictEqual(line(NODELEAK, ...quiet()), line());
  },

  'a reader of the report that goes away'() {
    const line = '"$@" 2>&1 >/dev/null | head -n 0; echo ${PIPESTATUS[0]}';
    const code = 'setTimeout(() => process.exit(7), 300)';
    const result = execute(['bash', '-c', line, 'bash', NODELEAK, `--output=${newRecording()}`, NODE, '-e', code]);
    assert.strictEqual(result.stdout, '7\n');
  },

  'a current directory that is gone'() {
    const line = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"';
    const recording = newRecording();
    const there = execute(['sh', '-c', line, 'sh', NODELEAK, '--quiet', `--output=${recording}`, NODE, '-p', '1']);
    assert.deepStrictEqual([there.status, there.stdout, there.stderr], [0, '1\n', '']);
    report(recording);
    const nowhere = execute(['sh', '-c', line, 'sh', NODELEAK, '--quiet', NODE, '-p', '1']);
    assert.deepStrictEqual([nowhere.status, nowhere.stdout], [2, '']);
    assert.match(nowhere.stderr, /^nodeleak: [^\n]+--output=PATH\n$/);
  },

  'a path with a space'() {
    const home = path.join(folder, 'a place');
    fs.mkdirSync(home);
    for (const built of [NODELEAK, SHIM]) fs.copyFileSync(built, path.join(home, path.basename(built)));
    const js = path.join(home, 'my app.js');
    fs.writeFileSync(js, 'function hold() { globalThis.x = Buffer.alloc(50021); } hold();' +
      'require("child_process").execFileSync(process.execPath, ["-e", "1"])');
    const result = execute([path.join(home, path.basename(NODELEAK)), '--quiet', NODE, js], { cwd: home });
    assert.deepStrictEqual([result.status, result.stdout, result.stderr], [0, '', '']);
    const reports = fs.readdirSync(home).filter((name) => name.endsWith('.rec')).map((name) => report(path.join(home, name)));
    assert.deepStrictEqual(reports.map((r) => outstanding(r, 'hold', 'array-buffer').bytes).sort(), [0, 50021]);
  },
});
