// Calls of a known depth, for benchmarks: what is called at the end is `depth` frames of this file deep.
#pragma once

namespace nodeleak::bench {

using Leaf = void (*)(void* argument);

__attribute__((noinline)) inline void CallDeep(int depth, Leaf leaf, void* argument) {
  if (depth <= 0) {
    leaf(argument);
  } else {
    CallDeep(depth - 1, leaf, argument);
  }
  asm volatile("");  // no tail call
}

}  // namespace nodeleak::bench
