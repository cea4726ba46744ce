// Programs without JavaScript: totals against glibc's own count, and how they end.
import assert from 'node:assert';
import { compile, execute, file, findLibrary, firstLine, nodeleak, record, report, run, skip, start } from './harness.mjs';

const NATIVE = process.env.NODELEAK_E2E_NATIVE;
const THREADS = 4;
const KEPT = 37;
const DTV_ENTRY = 16;

// What glibc's libmemusage counted: calls and bytes of malloc, realloc and calloc, and freed bytes.
function countByGlibc(...command) {
  const library = findLibrary('libmemusage.so');
  if (!library) skip('no libmemusage.so (package libc-devtools)');
  const text = execute(command, { env: { LD_PRELOAD: library } }).stderr.replace(/\x1b\[[0-9;]*m/g, '');
  const row = (name) => /(\d+)\s+(\d+)/.exec(new RegExp(`^\\s*${name}\\|(.*)$`, 'm').exec(text)[1]).slice(1).map(Number);
  const [malloc, realloc, calloc, free] = ['malloc', 'realloc', 'calloc', 'free'].map(row);
  return { calls: malloc[0] + realloc[0] + calloc[0], bytes: malloc[1] + calloc[1], freed: free[1] };
}

function checkKept(what) {
  const kept = what.groups.filter((g) => g.origin?.function === 'KeepSome');
  let bytes = 0;
  for (let i = 0; i < THREADS; i++) bytes += KEPT * (1999 + i);
  assert.strictEqual(kept.reduce((n, g) => n + g.liveBytes, 0), bytes);
  assert.strictEqual(kept.reduce((n, g) => n + g.liveBlocks, 0), KEPT * THREADS);
  assert(kept.every((g) => g.stacks.every((s) => s.frames.some((f) => f.function === 'Churn'))));
}

await run({
  'totals of a threaded program without realloc'() {
    const glibc = countByGlibc(NATIVE, 'plain');
    const { totals } = record([NATIVE, 'plain']).report;
    assert.strictEqual(totals.allocations, glibc.calls);
    // Each library with thread-local variables that we bring along lengthens each thread's table by one entry.
    const ours = totals.allocatedBytes - glibc.bytes;
    assert(ours % (THREADS * DTV_ENTRY) === 0 && ours >= 0 && ours <= 3 * THREADS * DTV_ENTRY, `${ours} bytes more`);
  },

  'calls and what is left of a threaded program with realloc'() {
    const { report: what } = record([NATIVE, 'totals']);
    checkKept(what);
    assert.strictEqual(what.totals.allocations, countByGlibc(NATIVE, 'totals').calls);
    assert.deepStrictEqual(what.totals.lost, { blocks: 0, stacks: 0, bytes: 0 });
  },

  'what static objects hold when main returns'() {
    const program = compile(file('statics.cc', `
      #include <cstdlib>
      #include <vector>
      static std::vector<char> kept;
      __attribute__((noinline)) static void Keep() { kept.resize(100003); }
      int main(int count, char**) {
        Keep();
        if (count > 1) exit(4);
        return 3;
      }`), 'statics', '-lstdc++');
    for (const [argument, code] of [[[], 3], [['exit'], 4]]) {
      const { report: what, status } = record([program, ...argument]);
      assert.deepStrictEqual([status, what.process.exitCode], [code, code]);
      assert(what.groups.some((g) => g.liveBytes === 100003 && g.kind === 'native'), JSON.stringify(what.groups));
    }
  },

  // libc ends the process after its last thread, and the recorder has one, too. The kernel shows no memory under the
  // number of the process any more.
  async 'main leaves before its threads'() {
    const plugin = compile(file('late.c', '#include <stdlib.h>\n__attribute__((noinline)) void* late(void) { return malloc(12347); }\n'),
      'late.so', '-shared', '-fPIC', '-fno-builtin');
    const program = compile(file('leaves.c', `
      #include <dlfcn.h>
      #include <pthread.h>
      #include <stdio.h>
      #include <stdlib.h>
      #include <string.h>
      #include <unistd.h>
      static void* volatile kept;
      static void* volatile touched;
      static const char* plugin;
      static void* Late(void* main_thread) {
        pthread_join(*(pthread_t*)main_thread, NULL);
        kept = ((void* (*)(void))dlsym(dlopen(plugin, RTLD_NOW), "late"))();
        touched = memset(malloc(5 << 20), 1, 5 << 20);
        puts("ready");
        fflush(stdout);
        getchar();
        return NULL;
      }
      int main(int count, char** arguments) {
        static pthread_t self;
        pthread_t thread;
        plugin = arguments[1];
        self = pthread_self();
        pthread_create(&thread, NULL, Late, &self);
        pthread_exit(NULL);
      }`), 'leaves', '-pthread');
    const { child, recording, ended } = start([program, plugin]);
    await firstLine(child);
    const pid = report(recording).process.pid;
    const now = JSON.parse(nodeleak(['rss', '--format=json', String(pid)]).stdout);
    child.stdin.end();
    assert.deepStrictEqual(await ended, { status: 0, signal: null });
    const what = report(recording);
    assert.strictEqual(what.process.ended, 'exit');
    const kept = what.groups.find((g) => g.liveBytes === 12347);
    assert.deepStrictEqual([kept?.origin.function, kept?.origin.module], ['late', plugin], JSON.stringify(what.groups));
    for (const { memory } of [now, what]) {
      const native = memory.lines.find((line) => line.name === 'native')?.touchedBytes;
      assert(native >= 5 << 20 && memory.rssBytes >= native, JSON.stringify(memory));
    }
  },

  // As some libraries are built (sharp's libvips): no unwind table, and rbp is a register like any other.
  'a stack that cannot be followed says so'() {
    const program = compile(file('tableless.c', `
      #include <stdlib.h>
      asm(".text\\n.globl tableless\\n.type tableless, @function\\ntableless:\\npush %rbp\\nxor %ebp, %ebp\\n"
          "call malloc@plt\\npop %rbp\\nret\\n.size tableless, . - tableless\\n");
      void* tableless(size_t size);
      void* volatile kept;
      int main(void) {
        kept = tableless(12347);
        return 0;
      }`), 'tableless');
    const [stack] = record([program]).report.groups.flatMap((g) => g.stacks).filter((s) => s.liveBytes === 12347);
    assert.deepStrictEqual(stack.frames.map((f) => f.type), ['native', 'marker'], JSON.stringify(stack));
    assert.strictEqual(stack.frames[0].function, 'tableless');
  },

  'mappings split, moved and mapped over'() {
    const { report: what } = record([NATIVE, 'mappings']);
    const pages = what.groups.filter((g) => g.origin?.function === 'Mappings').reduce((n, g) => n + g.liveBytes, 0) / 4096;
    assert.strictEqual(pages, 100 + 14 + 12);
  },

  'libraries that take turns at one address'() {
    const source = file('plugin.c', '#include <stdlib.h>\nvoid* volatile kept;\n' +
      '__attribute__((noinline)) static void KEEP(void) { kept = malloc(SIZE); }\nint run(void) { KEEP(); return 0; }\n');
    const plugins = [['keep_one', 3001], ['keep_two', 3003]].map(([name, size]) =>
      compile(source, `${name}.so`, '-shared', '-fPIC', '-fno-builtin', '-Wl,--build-id', `-DKEEP=${name}`, `-DSIZE=${size}`));
    const turns = compile(file('turns.c', `
      #include <dlfcn.h>
      int main(int count, char** plugins) {
        for (int i = 0; i < (count > 3 ? 60 : 20); i++) {
          void* plugin = dlopen(plugins[1 + i % 2], RTLD_NOW);
          ((int (*)(void))dlsym(plugin, "run"))();
          dlclose(plugin);
        }
        return 0;
      }`), 'turns');
    const { report: what } = record([turns, ...plugins]);
    const longer = record([turns, ...plugins, 'longer']).report;
    assert.strictEqual(longer.totals.stacks, what.totals.stacks, 'the same file again needs nothing new');
    const kept = (name) => what.groups.filter((g) => g.origin?.function === name).map((g) => [g.liveBlocks, g.liveBytes]);
    assert.deepStrictEqual([kept('keep_one'), kept('keep_two')], [[[10, 30010]], [[10, 30030]]]);
  },

  'a fork without exec stays out of the recording'() {
    const { report: what, stdout } = record([NATIVE, 'fork']);
    assert.match(stdout, /child ended with 7/);
    const kept = what.groups.filter((g) => g.origin?.function === 'KeepSome').reduce((n, g) => n + g.liveBytes, 0);
    assert.strictEqual(kept, KEPT * (5003 + 5009));
    assert.strictEqual(what.process.exitCode, 3);
  },
});
