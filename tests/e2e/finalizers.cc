// An addon whose memory goes with JavaScript objects, or stays: what node and V8 are told about it is up to the caller.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/e2e/node_api.h"

namespace {

// What a finalizer has to do beside freeing the buffer itself.
struct Work {
  void* parts[4];
};

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
  void* volatile lost = make_block(static_cast<size_t>(NumberArgument(env, info)));
  (void)lost;
  return nullptr;
}

napi_value External(napi_env env, napi_callback_info info) {
  const auto size = static_cast<size_t>(NumberArgument(env, info));
  napi_value buffer = nullptr;
  napi_create_external_buffer(env, size, make_block(size), FreeBlock, nullptr, &buffer);
  return buffer;
}

napi_value ExternalWithWork(napi_env env, napi_callback_info info) {
  const auto size = static_cast<size_t>(NumberArgument(env, info));
  auto* work = new Work;
  for (void*& part : work->parts) part = make_block(size / 8);
  napi_value buffer = nullptr;
  napi_create_external_buffer(env, size, make_block(size), FreeWithWork, work, &buffer);
  return buffer;
}

napi_value Wrapped(napi_env env, napi_callback_info info) {
  napi_value object = nullptr;
  napi_create_object(env, &object);
  napi_wrap(env, object, make_block(static_cast<size_t>(NumberArgument(env, info))), FreeBlock, nullptr, nullptr);
  return object;
}

napi_value Tell(napi_env env, napi_callback_info info) {
  int64_t now = 0;
  napi_adjust_external_memory(env, NumberArgument(env, info), &now);
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
