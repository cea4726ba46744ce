// A threaded program that is not node: allocates, fills, checks and frees without a pause on some threads, makes short
// threads all the while. Says "ready", then runs until its stdin ends; then how often, and what was wrong.
//   threads counted   does nothing until it is told to "go": then a known number of allocations, says "allocated N",
//                     and waits for the end of its stdin
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

constexpr long kCountedRounds = 200'000;  // of each thread

std::atomic<bool> g_stop;
std::atomic<long> g_rounds, g_corrupt;

struct Block {
  unsigned char* bytes = nullptr;
  size_t size = 0;
};

// A new block in the place of an old one, by one call that allocates.
void Replace(Block* block, unsigned how, size_t size) {
  void* aligned = nullptr;
  switch (how) {
    case 0:
      block->bytes = static_cast<unsigned char*>(realloc(block->bytes, size));
      break;
    case 1:
      free(block->bytes);
      block->bytes = static_cast<unsigned char*>(calloc(1, size));
      break;
    case 2:
      free(block->bytes);
      g_corrupt += posix_memalign(&aligned, 64, size) != 0;
      block->bytes = static_cast<unsigned char*>(aligned);
      break;
    default:
      free(block->bytes);
      block->bytes = static_cast<unsigned char*>(malloc(size));
  }
  block->size = size;
  memset(block->bytes, static_cast<int>(size), size);
}

void Churn(unsigned seed, long rounds) {
  std::vector<Block> blocks(300);
  for (; rounds != 0 && !g_stop; --rounds) {
    seed = seed * 1103515245 + 12345;
    Block& block = blocks[(seed >> 16) % blocks.size()];
    for (size_t i = 0; i < block.size; i += 61) g_corrupt += block.bytes[i] != static_cast<unsigned char>(block.size);
    Replace(&block, seed >> 29, (seed >> 8) % 5000 + 1);
    ++g_rounds;
  }
  for (Block& block : blocks) free(block.bytes);
}

void ChurnThreads() {
  while (!g_stop) {
    std::thread([] {
      std::vector<void*> blocks;
      for (size_t i = 0; i < 50; ++i) blocks.push_back(malloc(i * 37));
      for (void* block : blocks) free(block);
    }).join();
    usleep(2000);
  }
}

void SayReady() {
  puts("ready");
  fflush(stdout);
}

void WaitForLine() {
  for (char byte = 0; byte != '\n' && read(0, &byte, 1) > 0;) {
  }
}
void WaitForEndOfInput() {
  for (char byte; read(0, &byte, 1) > 0;) {
  }
}

}  // namespace

int main(int count, char**) {
  const bool counted = count > 1;
  std::vector<std::thread> threads;
  if (counted) {
    SayReady();
    WaitForLine();
  }
  for (unsigned i = 0; i < 3; ++i) threads.emplace_back(Churn, i + 1, counted ? kCountedRounds : -1);
  if (counted) {
    for (std::thread& thread : threads) thread.join();
    printf("allocated %ld\n", g_rounds.load());
    fflush(stdout);
    WaitForEndOfInput();
    return g_corrupt != 0 ? 1 : 0;
  }
  threads.emplace_back(ChurnThreads);
  SayReady();
  WaitForEndOfInput();
  g_stop = true;
  for (std::thread& thread : threads) thread.join();
  printf("rounds %ld\ncorrupt %ld\n", g_rounds.load(), g_corrupt.load());
  return g_corrupt != 0 ? 1 : 0;
}
