// Outside. What a seccomp filter says to a system call: the kernel's classic BPF, run here.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>

#include <vector>

namespace nodeleak::tracer {

using SeccompFilter = std::vector<sock_filter>;

// A SECCOMP_RET_* with its data. What is no filter that the kernel would take says SECCOMP_RET_KILL_PROCESS.
uint32_t RunSeccompFilter(const SeccompFilter& filter, const seccomp_data& call);

// All of them are run, and the strictest counts.
uint32_t RunSeccompFilters(const std::vector<SeccompFilter>& filters, const seccomp_data& call);

}  // namespace nodeleak::tracer
