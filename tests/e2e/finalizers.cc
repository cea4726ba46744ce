// An addon whose memory goes with JavaScript objects, or stays: what node and V8 are told about it is up to the caller.
// The few Node-API declarations it needs are written out: the tests fetch no headers.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
struct napi_env__;
struct napi_value__;
struct napi_callback_info__;
using napi_env = napi_env__*;
using napi_value = napi_value__*;
using napi_callback_info = napi_callback_info__*;
using napi_callback = napi_value (*)(napi_env, napi_callback_info);
using napi_finalize = void (*)(napi_env, void* data, void* hint);
int napi_get_cb_info(napi_env, napi_callback_info, size_t*, napi_value*, napi_value*, void**);
int napi_get_value_int64(napi_env, napi_value, int64_t*);
int napi_create_function(napi_env, const char*, size_t, napi_callback, void*, napi_value*);
int napi_set_named_property(napi_env, napi_value, const char*, napi_value);
int napi_create_external_buffer(napi_env, size_t, void*, napi_finalize, void*, napi_value*);
int napi_create_object(napi_env, napi_value*);
int napi_wrap(napi_env, napi_value, void*, napi_finalize, void*, void**);
int napi_adjust_external_memory(napi_env, int64_t, int64_t*);
}

namespace {

// What a finalizer has to do beside freeing the buffer itself.
struct Work {
  void* parts[4];
};

int64_t SizeArgument(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  int64_t size = 0;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_int64(env, argument, &size);
  return size;
}

}  // namespace

extern "C" __attribute__((noinline)) void* make_block(size_t size) {
  void* block = malloc(size);
  if (block != nullptr) memset(block, 0x5a, size);
  return block;
}

namespace {

void FreeBlock(napi_env, void* block, void*) { free(block); }

void FreeWithWork(napi_env, void* block, void* hint) {
  auto* work = static_cast<Work*>(hint);
  for (void* part : work->parts) free(part);
  delete work;
  free(block);
}

napi_value Lose(napi_env env, napi_callback_info info) {
  void* volatile lost = make_block(static_cast<size_t>(SizeArgument(env, info)));
  (void)lost;
  return nullptr;
}

napi_value External(napi_env env, napi_callback_info info) {
  const auto size = static_cast<size_t>(SizeArgument(env, info));
  napi_value buffer = nullptr;
  napi_create_external_buffer(env, size, make_block(size), FreeBlock, nullptr, &buffer);
  return buffer;
}

napi_value ExternalWithWork(napi_env env, napi_callback_info info) {
  const auto size = static_cast<size_t>(SizeArgument(env, info));
  auto* work = new Work;
  for (void*& part : work->parts) part = make_block(size / 8);
  napi_value buffer = nullptr;
  napi_create_external_buffer(env, size, make_block(size), FreeWithWork, work, &buffer);
  return buffer;
}

napi_value Wrapped(napi_env env, napi_callback_info info) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  napi_wrap(env, object, make_block(static_cast<size_t>(SizeArgument(env, info))), FreeBlock, nullptr, nullptr);
  return object;
}

napi_value Tell(napi_env env, napi_callback_info info) {
  int64_t now = 0;
  napi_adjust_external_memory(env, SizeArgument(env, info), &now);
  return nullptr;
}

struct Export {
  const char* name;
  napi_callback call;
};
constexpr Export kExports[] = {{"lose", Lose},
                               {"external", External},
                               {"externalWithWork", ExternalWithWork},
                               {"wrapped", Wrapped},
                               {"tell", Tell}};

}  // namespace

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  for (const Export& row : kExports) {
    napi_value function = nullptr;
    napi_create_function(env, row.name, static_cast<size_t>(-1), row.call, nullptr, &function);
    napi_set_named_property(env, exports, row.name, function);
  }
  return exports;
}
