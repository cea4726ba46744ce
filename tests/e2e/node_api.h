// The few Node-API declarations that the test addons need, written out: the tests fetch no headers.
#pragma once

#include <stddef.h>
#include <stdint.h>

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
int napi_create_external(napi_env, void* data, napi_finalize, void* hint, napi_value*);
int napi_create_int64(napi_env, int64_t, napi_value*);
int napi_set_named_property(napi_env, napi_value, const char*, napi_value);
int napi_create_external_buffer(napi_env, size_t, void*, napi_finalize, void*, napi_value*);
int napi_create_object(napi_env, napi_value*);
int napi_wrap(napi_env, napi_value, void*, napi_finalize, void*, void**);
int napi_get_typedarray_info(napi_env, napi_value, int* type, size_t* length, void** data, napi_value* buffer, size_t*);
int napi_adjust_external_memory(napi_env, int64_t, int64_t*);
}

// The one number that JavaScript passed.
inline int64_t NumberArgument(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  int64_t number = 0;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_int64(env, argument, &number);
  return number;
}
