// The table of kinds, on stacks as node 18 to 26 make them.
#include <memory>

#include "gtest/gtest.h"
#include "report/classify.h"

namespace nodeleak::report {
namespace {

constexpr char kNode[] = "/opt/node/bin/node";
constexpr char kAddon[] = "/srv/app/node_modules/canvas/build/Release/canvas.node";

class StackBuilder {
 public:
  StackBuilder& In(const char* module) { return module_ = module, *this; }
  StackBuilder& Native(const char* function, const char* demangled = "") {
    const ModuleClass module = ClassifyModule(module_, std::string_view(module_) == kNode);
    ClassifiedFrame frame;
    frame.frame = {.type = FrameType::kNative, .function = function, .module = module_};
    frame.native = ClassifyFrame(module, function, demangled);
    frame.hidden = IsHiddenFrame(module, function);
    return Add(frame);
  }
  StackBuilder& Js(const char* function, const char* file) {
    ClassifiedFrame frame;
    frame.frame = {.type = FrameType::kJs, .function = function, .file = file};
    return Add(frame);
  }
  Classification Classify(Source source = Source::kBlock) {
    StackView view;
    for (const auto& frame : frames_) {
      if (!frame->hidden) view.push_back(frame.get());
    }
    return ClassifyStack(view, source);
  }
  std::string OriginOf(const Classification& result) const {
    return result.origin.has_value() ? frames_[*result.origin]->frame.function : "(none)";
  }

 private:
  StackBuilder& Add(ClassifiedFrame frame) {
    frames_.push_back(std::make_unique<ClassifiedFrame>(std::move(frame)));
    return *this;
  }
  const char* module_ = kNode;
  std::vector<std::unique_ptr<ClassifiedFrame>> frames_;
};

void ExpectKind(StackBuilder stack, Kind kind, const std::string& origin, Source source = Source::kBlock) {
  const Classification result = stack.Classify(source);
  EXPECT_STREQ(KindName(result.kind), KindName(kind));
  EXPECT_EQ(stack.OriginOf(result), origin);
}

TEST(Classify, ABufferIsAnArrayBufferOfTheFunctionThatBuildsIt) {
  ExpectKind(std::move(StackBuilder()
                           .Native("node::NodeArrayBufferAllocator::Allocate")
                           .Native("std::_Function_handler<...>::_M_invoke")
                           .Native("v8::internal::Heap::AllocateExternalBackingStore")
                           .Native("v8::internal::BackingStore::Allocate")
                           .Native("v8::internal::ConstructBuffer")
                           .Native("v8::internal::Builtin_ArrayBufferConstructor")
                           .Js("f", "/srv/app/a.js")),
             Kind::kArrayBuffer, "v8::internal::ConstructBuffer");
}

// A thread whose frames are all of the standard library's kind: libc began it, but wanted nothing.
TEST(Classify, WhatAProgramsThreadAllocatesIsNotLibcs) {
  constexpr char kProgram[] = "/opt/bin/server", kLibc[] = "/lib/x86_64-linux-gnu/libc.so.6";
  for (const char* begin : {"start_thread", ""}) {
    ExpectKind(std::move(StackBuilder()
                             .In("/lib/x86_64-linux-gnu/libstdc++.so.6")
                             .Native("operator new")
                             .In(kProgram)
                             .Native("std::vector<...>::_M_realloc_insert<...>")
                             .Native("std::thread::_State_impl<...>::_M_run")
                             .In(kLibc)
                             .Native(begin)
                             .Native("clone3")),
               Kind::kNative, "std::thread::_State_impl<...>::_M_run");
  }
  ExpectKind(std::move(StackBuilder().In(kLibc).Native("malloc").Native("start_thread")), Kind::kLibc, "start_thread");
  ExpectKind(std::move(StackBuilder()
                           .In(kProgram)
                           .Native("std::vector<...>::push_back")
                           .In(kLibc)
                           .Native("")
                           .In(kProgram)
                           .Native("compare_all")),
             Kind::kNative, "compare_all");
}

// Exact counts of buffers depend on it.
TEST(Classify, TheDescriptorOfABackingStoreIsNotABuffer) {
  ExpectKind(
      std::move(StackBuilder().Native("operator new").Native("v8::internal::BackingStore::Allocate").Js("f", "/a.js")),
      Kind::kV8Internal, "v8::internal::BackingStore::Allocate");
  ExpectKind(std::move(StackBuilder()
                           .Native("operator new")
                           .Native("v8::internal::BackingStore::TryAllocateAndPartiallyCommitMemory")
                           .Native("v8::internal::BackingStore::AllocateWasmMemory")),
             Kind::kV8Internal, "v8::internal::BackingStore::TryAllocateAndPartiallyCommitMemory");
}

TEST(Classify, ABufferMadeByAnAddonHasTheAddonAsOrigin) {
  ExpectKind(std::move(StackBuilder()
                           .Native("node::NodeArrayBufferAllocator::AllocateUninitialized")
                           .Native("v8::internal::Heap::AllocateExternalBackingStore")
                           .Native("v8::internal::BackingStore::Allocate")
                           .Native("node::Buffer::New")
                           .Native("napi_create_buffer")
                           .In(kAddon)
                           .Native("Napi::Buffer<unsigned char>::New")
                           .Native("parse_header")
                           .In(kNode)
                           .Native("v8impl::FunctionCallbackWrapper::Invoke")
                           .Js("f", "/a.js")),
             Kind::kArrayBuffer, "parse_header");
}

TEST(Classify, MappingsOfWasmOfGrowableBuffersAndOfTheHeap) {
  ExpectKind(std::move(StackBuilder()
                           .Native("v8::base::OS::Allocate")
                           .Native("v8::internal::BackingStore::TryAllocateAndPartiallyCommitMemory")
                           .Native("v8::internal::BackingStore::AllocateWasmMemory")
                           .Native("v8::internal::WasmMemoryObject::New")
                           .Native("v8::WebAssemblyMemoryImpl")),
             Kind::kWasmMemory, "v8::WebAssemblyMemoryImpl", Source::kMapping);
  ExpectKind(std::move(StackBuilder()
                           .Native("v8::internal::AllocatePages")
                           .Native("v8::internal::BackingStore::TryAllocateAndPartiallyCommitMemory")
                           .Native("v8::internal::ConstructBuffer")),
             Kind::kArrayBuffer, "v8::internal::ConstructBuffer", Source::kMapping);
  ExpectKind(
      std::move(StackBuilder().Native("v8::base::OS::Allocate").Native("v8::internal::MemoryAllocator::AllocatePage")),
      Kind::kV8Heap, "v8::internal::MemoryAllocator::AllocatePage", Source::kMapping);
  ExpectKind(std::move(StackBuilder().In(kAddon).Native("map_file").In(kNode).Native("v8::internal::Execution::Call")),
             Kind::kMapping, "map_file", Source::kMapping);
}

TEST(Classify, ZlibThroughNodesOwnAllocatorIsZlib) {
  ExpectKind(std::move(StackBuilder()
                           .Native("node::CompressionStream<...>::AllocForBrotli")
                           .Native("node::CompressionStream<...>::AllocForZlib")
                           .Native("deflateInit2_")
                           .Native("node::ZlibContext::InitZlib")),
             Kind::kZlib, "deflateInit2_");
  ExpectKind(std::move(StackBuilder()
                           .Native("node::CompressionStream<...>::AllocForBrotli")
                           .Native("BrotliEncoderCreateInstance")
                           .Native("node::BrotliEncoderContext::Init")),
             Kind::kBrotli, "BrotliEncoderCreateInstance");
}

TEST(Classify, LibrariesInsideNodeByPrefixAndByTheirAllocator) {
  ExpectKind(std::move(StackBuilder().Native("CRYPTO_zalloc").Native("EVP_CIPHER_CTX_new").Native("node::crypto::X")),
             Kind::kOpenSsl, "EVP_CIPHER_CTX_new");
  ExpectKind(std::move(StackBuilder().Native("CRYPTO_malloc").Native("some_static_helper").Native("node::crypto::X")),
             Kind::kOpenSsl, "some_static_helper");
  ExpectKind(std::move(StackBuilder().Native("uprv_malloc_78").Native("icu_78::Locale::Locale")), Kind::kIcu,
             "icu_78::Locale::Locale");
  ExpectKind(std::move(StackBuilder().Native("ares_malloc_zero").Native("ares_query")), Kind::kAres, "ares_query");
  ExpectKind(std::move(StackBuilder()
                           .Native("node::mem::NgLibMemoryManager<node::http2::Http2Session, nghttp2_mem>::MallocImpl")
                           .Native("nghttp2_session_client_new")),
             Kind::kHttp2, "nghttp2_session_client_new");
  ExpectKind(std::move(StackBuilder().Native("sqlite3MemMalloc").Native("sqlite3Malloc").Native("pcache1Alloc")),
             Kind::kSqlite, "pcache1Alloc");
  ExpectKind(std::move(StackBuilder().Native("uv__malloc").Native("uv_loop_init").Native("node::X")), Kind::kNode,
             "uv_loop_init");
  ExpectKind(std::move(StackBuilder().Native("operator new").Native("node::TCPWrap::New")), Kind::kNode,
             "node::TCPWrap::New");
}

// The crates of napi-rs's addons are often called like Node-API's functions.
TEST(Classify, AnAddonsFunctionNamedLikeNodeApiIsTheAddons) {
  ExpectKind(std::move(StackBuilder()
                           .Native("node::Buffer::New")
                           .Native("napi_create_external_buffer")
                           .In("/srv/app/node_modules/@napi-rs/snappy-linux-x64-gnu/snappy.linux-x64-gnu.node")
                           .Native("napi::bindgen_runtime::js_values::buffer::BufferSlice::from_data")
                           .Native("napi_snappy::compress_sync_c_callback")
                           .In(kNode)
                           .Native("v8impl::FunctionCallbackWrapper::Invoke")
                           .Js("pack", "/srv/app/a.js")),
             Kind::kAddon, "napi_snappy::compress_sync_c_callback");
}

// OpenSSL's allocator calls realloc as its last step, and is no longer on the stack then.
TEST(Classify, AStaticFunctionOfALibraryInsideNodeIsTheLibrarysThatCallsIt) {
  ExpectKind(std::move(StackBuilder()
                           .Native("add_provider_groups")
                           .Native("ossl_prov_get_capabilities")
                           .Native("node::crypto::SecureContext::Init")),
             Kind::kOpenSsl, "add_provider_groups");
  ExpectKind(std::move(StackBuilder()
                           .Native("hd_ringbuf_reserve")
                           .Native("add_hd_table_incremental")
                           .Native("nghttp2_hd_deflate_hd_bufs")
                           .Native("node::http2::Http2Session::SendPendingData")),
             Kind::kHttp2, "hd_ringbuf_reserve");
  for (const char* own : {"node::crypto::NodeBIO::Write", "ncrypto::Cipher::make", "_register_external_reference_uv"})
    ExpectKind(std::move(StackBuilder().Native(own).Native("node::Start").Native("BIO_write")), Kind::kNode, own);
  ExpectKind(std::move(StackBuilder().Native("node::crypto::NodeBIO::Write").Native("BIO_write")), Kind::kNode,
             "node::crypto::NodeBIO::Write");
}

TEST(Classify, AnAddonWithItsOwnSqliteIsTheAddon) {
  ExpectKind(std::move(StackBuilder().In(kAddon).Native("sqlite3MemMalloc").Native("openDatabase")), Kind::kAddon,
             "openDatabase");
  ExpectKind(std::move(StackBuilder().In(kAddon).Native("")), Kind::kAddon, "");
  ExpectKind(std::move(StackBuilder().Native("operator new").Native("napi_wrap").In(kAddon).Native("MyObject::New")),
             Kind::kAddon, "MyObject::New");
}

// The names that rustc 1.95 gave in a release build; those in full tell whose impl it is.
TEST(Classify, TheLibraryOfRustAllocatesForItsCaller) {
  ExpectKind(
      std::move(StackBuilder()
                    .In(kAddon)
                    .Native("std::sys::alloc::unix::aligned_malloc")
                    .Native("<System as GlobalAlloc>::alloc",
                            "<std::alloc::System as core::alloc::global::GlobalAlloc>::alloc")
                    .Native("__rustc::__rdl_alloc")
                    .Native("<Global as Allocator>::grow", "<alloc::alloc::Global as core::alloc::Allocator>::grow")
                    .Native("alloc::raw_vec::RawVecInner::finish_grow")
                    .Native("<[T]>::to_vec", "<[T] as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec")
                    .Native("<&mut W as Write>::write_char", "<&mut W as core::fmt::Write>::write_char")
                    .Native("<Zip<T> as Enc>::enc", "<codec::Zip<T> as codec::Enc>::enc")
                    .Native("rust_leak")),
      Kind::kAddon, "<Zip<T> as Enc>::enc");
  // A trait of the library, but for a type of the addon.
  ExpectKind(std::move(StackBuilder()
                           .In(kAddon)
                           .Native("alloc::alloc::alloc")
                           .Native("<Image as Clone>::clone", "<image::Image as core::clone::Clone>::clone")
                           .Native("rust_leak")),
             Kind::kAddon, "<Image as Clone>::clone");
}

TEST(Classify, SharedLibrariesByTheirFile) {
  ExpectKind(std::move(StackBuilder().In("/usr/lib/libz.so.1.2.13").Native("")), Kind::kZlib, "");
  ExpectKind(std::move(StackBuilder().In("/usr/lib/libcrypto.so.3").Native("CRYPTO_malloc").Native("BN_new")),
             Kind::kOpenSsl, "BN_new");
  ExpectKind(std::move(StackBuilder().In("/usr/lib/libnode.so.108").Native("node::TCPWrap::New")), Kind::kNode,
             "node::TCPWrap::New");
  ExpectKind(std::move(StackBuilder().In("/lib/libc.so.6").Native("fopen")), Kind::kLibc, "fopen");
  ExpectKind(std::move(StackBuilder().In("/usr/lib/libvips.so.42").Native("g_malloc").Native("vips_image_new")),
             Kind::kNative, "vips_image_new");
}

TEST(Classify, AStrippedNodeIsNotGuessedAt) {
  ExpectKind(std::move(StackBuilder().Native("").Native("").Js("f", "/a.js")), Kind::kNative, "");
}

TEST(Classify, ZlibBesideAStrippedNodeCallsItsUnnamedAllocator) {
  ExpectKind(std::move(StackBuilder()
                           .In("/usr/lib/libnode.so.108")
                           .Native("")
                           .In("/usr/lib/libz.so.1.2.13")
                           .Native("deflateInit2_")
                           .In("/usr/lib/libnode.so.108")
                           .Native("")),
             Kind::kZlib, "deflateInit2_");
  // libuv calls back for other reasons.
  ExpectKind(std::move(StackBuilder()
                           .In("/usr/lib/libnode.so.108")
                           .Native("")
                           .In("/usr/lib/libuv.so.1.0.0")
                           .Native("uv__run_timers")),
             Kind::kNative, "");
}

TEST(Classify, TheSiteIsTheNearestApplicationFrame) {
  StackBuilder stack;
  stack.Native("deflateInit2_").Js("Zlib", "node:zlib").Js("pack", "/srv/app/node_modules/tar/pack.js");
  EXPECT_EQ(stack.Classify().site, 2u);  // nothing else is there
  stack.Js("emit", "node:events").Js("onRequest", "/srv/app/server.js").Js("main", "/srv/app/main.js");
  EXPECT_EQ(stack.Classify().site, 4u);
  EXPECT_FALSE(StackBuilder().Js("f", "node:fs").Classify().site.has_value());
}

TEST(Classify, TheShimAndV8StubsAreHidden) {
  EXPECT_TRUE(IsHiddenFrame(ClassifyModule("/opt/lib/libnodeleak-preload.so", false), "malloc"));
  EXPECT_TRUE(IsHiddenFrame(ClassifyModule(kNode, true), "Builtins_JSEntryTrampoline"));
  EXPECT_FALSE(IsHiddenFrame(ClassifyModule(kAddon, false), "Builtins_mine"));
}

}  // namespace
}  // namespace nodeleak::report
