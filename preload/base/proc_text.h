// Runs inside node, on any thread, possibly inside malloc. Never allocates, waits or throws.
#pragma once

#include <stdint.h>
#include <string.h>

#include "preload/base/system.h"

namespace nodeleak::preload {

// The number at *p as /proc/PID/maps writes addresses, and *p behind it; 0 when there is none.
inline uint64_t ParseHex(const char** p) {
  uint64_t value = 0;
  for (;; ++*p) {
    const char c = **p;
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return value;
    value = value << 4 | static_cast<uint64_t>(digit);
  }
}

// Of /proc/PID/cmdline: what comes after `argument`, the first one after nullptr. nullptr: no more.
inline const char* NextArgument(const MappedText& command, const char* argument) {
  const char* next = argument == nullptr ? command.data : argument + strlen(argument) + 1;
  return next != nullptr && next < command.data + command.bytes ? next : nullptr;
}

}  // namespace nodeleak::preload
