// Outside node. The table that classify.cc searches. Names were read with `nm -C` from the official binaries of node
// 18.20, 20.20, 22.23, 24.21 and 26.10, shortened as ShortFunctionName does (no parameters, no return type).
#pragma once

#include <string_view>

#include "report/classify.h"

namespace nodeleak::report {

enum class Match : uint8_t { kExact, kPrefix, kContains };

struct FunctionRule {
  Match match;
  std::string_view text;
  FrameClass result;
};
struct ModuleRule {
  std::string_view prefix;  // of the file name
  ModuleClass result;
};

inline constexpr FrameClass kPlumbing = {FrameRole::kPlumbing, Kind::kNative, Certainty::kBinary};
inline constexpr FrameClass PlumbingOf(Kind kind) { return {FrameRole::kPlumbing, kind, Certainty::kLibrary}; }
inline constexpr FrameClass Special(Kind kind) { return {FrameRole::kSpecial, kind, Certainty::kLibrary}; }
inline constexpr FrameClass SpecialMapping(Kind kind) {
  return {FrameRole::kSpecialMapping, kind, Certainty::kLibrary};
}
inline constexpr FrameClass OwnerOf(Kind kind) { return {FrameRole::kOwner, kind, Certainty::kLibrary}; }
inline constexpr FrameClass BinaryOf(Kind kind) { return {FrameRole::kOwner, kind, Certainty::kBinary}; }

// In any module, first match wins.
inline constexpr FunctionRule kAllocatorRules[] = {
    // libc and its kin: these allocate what their caller asked for
    {Match::kExact, "malloc", kPlumbing},
    {Match::kExact, "calloc", kPlumbing},
    {Match::kPrefix, "realloc", kPlumbing},
    {Match::kExact, "posix_memalign", kPlumbing},
    {Match::kExact, "aligned_alloc", kPlumbing},
    {Match::kExact, "memalign", kPlumbing},
    {Match::kExact, "valloc", kPlumbing},
    {Match::kExact, "pvalloc", kPlumbing},
    {Match::kPrefix, "__libc_malloc", kPlumbing},
    {Match::kPrefix, "__libc_calloc", kPlumbing},
    {Match::kPrefix, "__libc_realloc", kPlumbing},
    {Match::kExact, "mmap", kPlumbing},
    {Match::kExact, "mmap64", kPlumbing},
    {Match::kExact, "__mmap", kPlumbing},
    {Match::kExact, "mremap", kPlumbing},
    {Match::kExact, "strdup", kPlumbing},
    {Match::kExact, "__strdup", kPlumbing},
    {Match::kExact, "strndup", kPlumbing},
    {Match::kExact, "__strndup", kPlumbing},
    {Match::kContains, "vasprintf", kPlumbing},
    {Match::kExact, "asprintf", kPlumbing},
    {Match::kExact, "__asprintf", kPlumbing},
    {Match::kExact, "getdelim", kPlumbing},
    {Match::kExact, "_IO_getdelim", kPlumbing},
    {Match::kPrefix, "realpath", kPlumbing},
    {Match::kExact, "xmalloc", kPlumbing},
    {Match::kExact, "xcalloc", kPlumbing},
    {Match::kExact, "xrealloc", kPlumbing},
    {Match::kPrefix, "g_malloc", kPlumbing},
    {Match::kPrefix, "g_realloc", kPlumbing},
    {Match::kPrefix, "g_try_malloc", kPlumbing},
    {Match::kPrefix, "g_slice_alloc", kPlumbing},
    {Match::kExact, "g_strdup", kPlumbing},
    // allocators loaded beside us
    {Match::kPrefix, "je_", kPlumbing},
    {Match::kPrefix, "mi_malloc", kPlumbing},
    {Match::kPrefix, "mi_calloc", kPlumbing},
    {Match::kPrefix, "mi_realloc", kPlumbing},
    {Match::kPrefix, "mi_heap_", kPlumbing},
    {Match::kPrefix, "_mi_", kPlumbing},
    {Match::kPrefix, "tc_malloc", kPlumbing},
    // C++
    {Match::kPrefix, "operator new", kPlumbing},
    {Match::kPrefix, "std::", kPlumbing},
    {Match::kPrefix, "void std::", kPlumbing},
    {Match::kPrefix, "__gnu_cxx::", kPlumbing},
    {Match::kPrefix, "__cxa_allocate", kPlumbing},
    {Match::kPrefix, "absl::container_internal::", kPlumbing},
    {Match::kPrefix, "absl::inlined_vector_internal::", kPlumbing},
    // Rust
    {Match::kPrefix, "alloc::", kPlumbing},
    {Match::kPrefix, "core::", kPlumbing},
    {Match::kPrefix, "hashbrown::", kPlumbing},
    {Match::kPrefix, "__rust_", kPlumbing},
    {Match::kPrefix, "__rustc::", kPlumbing},
    {Match::kPrefix, "__rdl_", kPlumbing},
    {Match::kPrefix, "__rg_", kPlumbing},
    // What addons carry with them to talk to node: their own function is the origin
    {Match::kPrefix, "Napi::", kPlumbing},
    {Match::kPrefix, "Nan::", kPlumbing},
    {Match::kPrefix, "napi::", kPlumbing},  // napi-rs
    // Libraries' wrappers: a hint of the kind, and look further out for the function
    {Match::kPrefix, "CRYPTO_malloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_zalloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_calloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_realloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_clear_realloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_aligned_alloc", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_secure_", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_strdup", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_strndup", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_memdup", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "OPENSSL_LH_", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "OPENSSL_sk_", PlumbingOf(Kind::kOpenSsl)},
    {Match::kExact, "sk_reserve", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "ossl_ht_", PlumbingOf(Kind::kOpenSsl)},
    {Match::kPrefix, "uprv_strdup", PlumbingOf(Kind::kIcu)},
    {Match::kPrefix, "uprv_malloc", PlumbingOf(Kind::kIcu)},
    {Match::kPrefix, "uprv_calloc", PlumbingOf(Kind::kIcu)},
    {Match::kPrefix, "uprv_realloc", PlumbingOf(Kind::kIcu)},
    {Match::kContains, "::UMemory::operator new", PlumbingOf(Kind::kIcu)},
    {Match::kPrefix, "ares_malloc", PlumbingOf(Kind::kAres)},
    {Match::kPrefix, "ares_realloc", PlumbingOf(Kind::kAres)},
    {Match::kExact, "ares_strdup", PlumbingOf(Kind::kAres)},
    {Match::kPrefix, "__ares_", PlumbingOf(Kind::kAres)},
    {Match::kPrefix, "default_malloc", kPlumbing},
    {Match::kPrefix, "nghttp2_mem_", PlumbingOf(Kind::kHttp2)},
    {Match::kContains, "NgLibMemoryManager<node::http2", PlumbingOf(Kind::kHttp2)},
    {Match::kContains, "NgLibMemoryManager", kPlumbing},
    {Match::kPrefix, "sqlite3Malloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3DbMalloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3MemMalloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3MemRealloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3Realloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3DbRealloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3DbStrDup", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3_malloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "sqlite3_realloc", PlumbingOf(Kind::kSqlite)},
    {Match::kPrefix, "BrotliAllocate", PlumbingOf(Kind::kBrotli)},
    {Match::kPrefix, "BrotliDefaultAlloc", PlumbingOf(Kind::kBrotli)},
    {Match::kPrefix, "zcalloc", PlumbingOf(Kind::kZlib)},
    {Match::kPrefix, "Cr_z_zcalloc", PlumbingOf(Kind::kZlib)},
    // AllocForZlib calls AllocForBrotli (one body in node 18): the outermost hint counts. Zstd uses AllocForBrotli too,
    // but has functions of its own further out.
    {Match::kContains, "::AllocForZlib", PlumbingOf(Kind::kZlib)},
    {Match::kContains, "::AllocForBrotli", PlumbingOf(Kind::kBrotli)},
    {Match::kPrefix, "ZSTD_customMalloc", PlumbingOf(Kind::kNode)},
    {Match::kPrefix, "ZSTD_customCalloc", PlumbingOf(Kind::kNode)},
    {Match::kPrefix, "uv__malloc", kPlumbing},
    {Match::kPrefix, "uv__calloc", kPlumbing},
    {Match::kPrefix, "uv__realloc", kPlumbing},
    {Match::kExact, "uv__strdup", kPlumbing},
    {Match::kExact, "uv__strndup", kPlumbing},
};

// The crates of Rust's library. What they implement for one of their types ("<alloc::string::String as ...>") or for
// any type ("<T as alloc::vec::...>") is plumbing, too.
inline constexpr std::string_view kRustLibraryCrates[] = {"alloc::", "core::", "std::", "hashbrown::"};

// In node's own binary only (executable or libnode.so), after the rules above.
inline constexpr FunctionRule kNodeRules[] = {
    // Wasm memories come through BackingStore as well, so first. As mappings; their descriptors are v8-internal blocks.
    {Match::kContains, "BackingStore::AllocateWasmMemory", SpecialMapping(Kind::kWasmMemory)},
    {Match::kContains, "BackingStore::GrowWasmMemory", SpecialMapping(Kind::kWasmMemory)},
    {Match::kContains, "BackingStore::CopyWasmMemory", SpecialMapping(Kind::kWasmMemory)},
    {Match::kContains, "WasmMemoryObject::", SpecialMapping(Kind::kWasmMemory)},
    // The allocators of backing stores. Not BackingStore::Allocate: it also makes the small descriptor, which is not
    // the
    // user's memory and would make the counts of buffers wrong.
    {Match::kContains, "ArrayBufferAllocator::Allocate", Special(Kind::kArrayBuffer)},
    {Match::kContains, "ArrayBufferAllocator::Reallocate", Special(Kind::kArrayBuffer)},
    {Match::kContains, "ArrayBuffer::Allocator::Reallocate", Special(Kind::kArrayBuffer)},
    {Match::kContains, "Heap::AllocateExternalBackingStore", Special(Kind::kArrayBuffer)},
    {Match::kContains, "BackingStore::TryAllocateAndPartiallyCommitMemory", SpecialMapping(Kind::kArrayBuffer)},
    // Node-API, for an addon further out. Only here: addons have functions of such names, too (`napi_snappy::pack`).
    {Match::kPrefix, "napi_", kPlumbing},
    {Match::kPrefix, "node_api_", kPlumbing},
    {Match::kPrefix, "v8impl::", kPlumbing},
    // Plumbing of V8 and node
    {Match::kPrefix, "v8::base::", kPlumbing},
    {Match::kPrefix, "v8::internal::Malloced::", kPlumbing},
    {Match::kPrefix, "v8::internal::AlignedAlloc", kPlumbing},
    {Match::kPrefix, "v8::internal::AllocWithRetry", kPlumbing},
    {Match::kPrefix, "v8::internal::AllocAtLeastWithRetry", kPlumbing},
    {Match::kPrefix, "v8::internal::AllocatePages", kPlumbing},
    {Match::kPrefix, "v8::internal::NewArray", kPlumbing},
    {Match::kPrefix, "v8::internal::StrDup", kPlumbing},
    {Match::kPrefix, "v8::internal::VirtualMemory::", kPlumbing},
    {Match::kPrefix, "v8::internal::Zone::", kPlumbing},
    {Match::kPrefix, "v8::internal::AccountingAllocator::", kPlumbing},
    {Match::kPrefix, "v8::ArrayBuffer::New", kPlumbing},
    {Match::kPrefix, "v8::SharedArrayBuffer::New", kPlumbing},
    {Match::kPrefix, "node::UncheckedMalloc", kPlumbing},
    {Match::kPrefix, "node::UncheckedCalloc", kPlumbing},
    {Match::kPrefix, "node::UncheckedRealloc", kPlumbing},
    {Match::kPrefix, "node::Malloc", kPlumbing},
    {Match::kPrefix, "node::Calloc", kPlumbing},
    {Match::kPrefix, "node::Realloc", kPlumbing},
    {Match::kPrefix, "node::MaybeStackBuffer", kPlumbing},
    {Match::kPrefix, "node::Buffer::New", kPlumbing},
    {Match::kPrefix, "node::Buffer::Copy", kPlumbing},
    // Libraries that node links statically
    {Match::kPrefix, "deflate", OwnerOf(Kind::kZlib)},
    {Match::kPrefix, "inflate", OwnerOf(Kind::kZlib)},
    {Match::kPrefix, "updatewindow", OwnerOf(Kind::kZlib)},
    {Match::kPrefix, "Cr_z_", OwnerOf(Kind::kZlib)},
    {Match::kPrefix, "Brotli", OwnerOf(Kind::kBrotli)},
    {Match::kPrefix, "ZSTD_", OwnerOf(Kind::kNode)},
    {Match::kPrefix, "ares_", OwnerOf(Kind::kAres)},
    {Match::kPrefix, "nghttp2_", OwnerOf(Kind::kHttp2)},
    {Match::kPrefix, "sqlite3", OwnerOf(Kind::kSqlite)},
    {Match::kPrefix, "icu_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "ucal_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "ucnv_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "ucol_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "udat_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "udata_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "uhash_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "uloc_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "ures_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "uprv_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "u_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "SSL_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "ssl_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "ossl_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "OSSL_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "OPENSSL_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "CRYPTO_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "EVP_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "BIO_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "X509", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "ASN1_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "BN_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "EC_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "RSA_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "PEM_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "UDataMemory_", OwnerOf(Kind::kIcu)},
    {Match::kPrefix, "ERR_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "ENGINE_", OwnerOf(Kind::kOpenSsl)},
    {Match::kPrefix, "uv_", OwnerOf(Kind::kNode)},
    {Match::kPrefix, "node::", BinaryOf(Kind::kNode)},
    {Match::kPrefix, "v8::", BinaryOf(Kind::kV8Internal)},
    {Match::kPrefix, "v8_inspector::", BinaryOf(Kind::kV8Internal)},
    {Match::kPrefix, "cppgc::", BinaryOf(Kind::kV8Internal)},
    {Match::kPrefix, "heap::base::", BinaryOf(Kind::kV8Internal)},
    {Match::kPrefix, "Builtins_", BinaryOf(Kind::kV8Internal)},
    {Match::kPrefix, "absl::", BinaryOf(Kind::kV8Internal)},
};

// By file name. Shared libraries that distributions unbundle from node, and the C and C++ runtime.
inline constexpr ModuleRule kModuleRules[] = {
    {"libnodeleak-preload", {ModuleRole::kShim, Kind::kNative}},
    {"libnode.so", {ModuleRole::kNode, Kind::kNode}},
    {"libssl.", {ModuleRole::kLibrary, Kind::kOpenSsl}},
    {"libcrypto.", {ModuleRole::kLibrary, Kind::kOpenSsl}},
    {"libz.", {ModuleRole::kLibrary, Kind::kZlib}},
    {"libbrotli", {ModuleRole::kLibrary, Kind::kBrotli}},
    {"libicu", {ModuleRole::kLibrary, Kind::kIcu}},
    {"libcares.", {ModuleRole::kLibrary, Kind::kAres}},
    {"libnghttp2.", {ModuleRole::kLibrary, Kind::kHttp2}},
    {"libsqlite3.", {ModuleRole::kLibrary, Kind::kSqlite}},
    {"libuv.", {ModuleRole::kLibrary, Kind::kNode}},
    {"libc.so", {ModuleRole::kLibc, Kind::kLibc}},
    {"libc-2.", {ModuleRole::kLibc, Kind::kLibc}},
    {"ld-linux", {ModuleRole::kLibc, Kind::kLibc}},
    {"ld-2.", {ModuleRole::kLibc, Kind::kLibc}},
    {"libpthread", {ModuleRole::kLibc, Kind::kLibc}},
    {"libdl.", {ModuleRole::kLibc, Kind::kLibc}},
    {"libresolv.", {ModuleRole::kLibc, Kind::kLibc}},
    {"libnss_", {ModuleRole::kLibc, Kind::kLibc}},
    {"libm.so", {ModuleRole::kLibc, Kind::kLibc}},
    {"libstdc++.", {ModuleRole::kRuntime, Kind::kNative}},
    {"libgcc_s.", {ModuleRole::kRuntime, Kind::kNative}},
    {"libjemalloc", {ModuleRole::kRuntime, Kind::kNative}},
    {"libmimalloc", {ModuleRole::kRuntime, Kind::kNative}},
    {"libtcmalloc", {ModuleRole::kRuntime, Kind::kNative}},
};

}  // namespace nodeleak::report
