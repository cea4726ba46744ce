// Holds known values in every register that a borrowed thread has, general, vector, x87, flags, and in the red zone,
// while it spins; checks them after each spin. Its only thread: whoever borrows one borrows this. AVX-512 where the
// processor has it, else SSE. Says "ready"; when its stdin ends, how many rounds, and how many were wrong.
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

namespace {

alignas(64) uint64_t g_in[32][8], g_out[32][8];

// r10: 0 when r12 to r15 and the red zone held; rdi: 1 when the carry flag held.
#define SPIN(LOAD, STORE)                                                                                             \
  asm volatile(LOAD                                                                                                   \
               "mov $0x5eed5eed12345678, %%r8\n mov %%r8, -64(%%rsp)\n fldpi\n"                                       \
               "mov $0x3333, %%r12\n mov $0x4444, %%r13\n mov $0x5555, %%r14\n mov $0x6666, %%r15\n"                  \
               "mov $3000000, %%rcx\n stc\n"                                                                          \
               "1: dec %%rcx\n jnz 1b\n"                                                                              \
               "mov $0, %%edi\n setc %%dil\n mov -64(%%rsp), %%r10\n xor %%r8, %%r10\n"                               \
               "xor $0x3333, %%r12\n xor $0x4444, %%r13\n xor $0x5555, %%r14\n xor $0x6666, %%r15\n"                  \
               "or %%r12, %%r10\n or %%r13, %%r10\n or %%r14, %%r10\n or %%r15, %%r10\n fstpl %2\n" STORE             \
               : "=&r"(other), "=&r"(carry), "=m"(pi)                                                                 \
               : "a"(g_in), "d"(g_out)                                                                                \
               : "rcx", "rdi", "r8", "r10", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2",       \
                 "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
                 "xmm15")

#define RESULTS "mov %%r10, %0\n mov %%rdi, %1\n"
#define EACH_512 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define EACH_128 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

// True when all held.
bool Spin512() {
  uint64_t other = 1, carry = 0;
  double pi = 0;
  SPIN(".irp n," EACH_512 "\n vmovdqu64 (\\n*64)(%%rax), %%zmm\\n\n .endr\n",
       ".irp n," EACH_512 "\n vmovdqu64 %%zmm\\n, (\\n*64)(%%rdx)\n .endr\n" RESULTS);
  return memcmp(g_in, g_out, sizeof g_in) == 0 && other == 0 && carry == 1 && pi > 3.14159265 && pi < 3.14159266;
}

bool Spin128() {
  uint64_t other = 1, carry = 0;
  double pi = 0;
  SPIN(".irp n," EACH_128 "\n movdqu (\\n*64)(%%rax), %%xmm\\n\n .endr\n",
       ".irp n," EACH_128 "\n movdqu %%xmm\\n, (\\n*64)(%%rdx)\n .endr\n" RESULTS);
  bool held = true;
  for (int i = 0; i < 16; ++i) held &= memcmp(g_in[i], g_out[i], 16) == 0;
  return held && other == 0 && carry == 1 && pi > 3.14159265 && pi < 3.14159266;
}

}  // namespace

int main() {
  for (uint64_t i = 0; i < 32; ++i)
    for (uint64_t j = 0; j < 8; ++j) g_in[i][j] = 0x0101010101010101u * (i + 1) + j * 77;
  const bool wide = __builtin_cpu_supports("avx512f") != 0;
  long rounds = 0, wrong = 0;
  puts("ready");
  fflush(stdout);
  for (pollfd end = {0, POLLIN, 0}; poll(&end, 1, 0) == 0; ++rounds) {
    memset(g_out, 0, sizeof g_out);
    wrong += wide ? !Spin512() : !Spin128();
  }
  printf("rounds %ld\nwrong %ld\n", rounds, wrong);
  return wrong != 0 ? 1 : 0;
}
