// Outside node. Compression streams of node work on threads of libuv's pool, where nothing of JavaScript is on the
// stack: what zlib, brotli and zstd allocate there, most of what such a stream takes, has no site. The stream itself is
// a small object of node's, made by the JavaScript that asked for it. Where those are outstanding tells, by their
// number alone, for whom the pool allocated.
#pragma once

#include <vector>

#include "report/model.h"

namespace nodeleak::report {

// Sets Group::likely_site of groups of the pool, from the other groups.
void AddLikelySites(std::vector<Group>* groups);

}  // namespace nodeleak::report
