// Runs inside node, on any thread, possibly inside malloc. Never allocates or throws.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nodeleak::preload {

// Copies `bytes` from anywhere in our own address space; false (and *out unspecified) where it is not readable. A
// system call, 0.3 us and up; three where a seccomp filter refuses process_vm_readv (Docker's and containerd's default
// profiles did for years), and a descriptor of /proc/thread-self/mem then.
bool SafeRead(uint64_t address, void* out, size_t bytes);

// Whether the page of `address` can be read. Waits for no lock of the address space while the page is in memory: other
// threads may change mappings meanwhile.
bool IsPageReadable(uint64_t address);

// Whether each of `count` pages from `address` on, 16 at most, is in memory and can be read: two system calls. False
// also where process_vm_readv is refused.
bool ArePagesReadable(uint64_t address, int count);

void ForgetOwnMemory();  // in a forked child: what is known is of the parent
void CloseOwnMemory();   // when the recording goes

}  // namespace nodeleak::preload
