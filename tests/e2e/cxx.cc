// A C++ program for the end-to-end tests: every form of operator new and delete, which an allocator preloaded beside us
// may serve by operators of its own.
#include <cstdint>
#include <cstdio>
#include <new>

namespace {

constexpr int kTimes = 10;
struct alignas(128) Aligned {
  char bytes[640];
};

void* volatile g_escaped;
template <typename T>
T* Escape(T* block) {
  g_escaped = block;
  return block;
}

}  // namespace

// Each keeps kTimes blocks.
extern "C" {
__attribute__((noinline)) void keep_new() {
  for (int i = 0; i < kTimes; i++) Escape(new char[7001]);
}
__attribute__((noinline)) void keep_nothrow() {
  for (int i = 0; i < kTimes; i++) Escape(new (std::nothrow) char[3001]);
}
__attribute__((noinline)) void keep_aligned() {
  for (int i = 0; i < kTimes; i++) Escape(new Aligned);
}
__attribute__((noinline)) void give_back() {
  for (int i = 0; i < kTimes; i++) {
    delete Escape(new int64_t);
    delete[] Escape(new char[5003]);
    delete Escape(new Aligned);
    delete[] Escape(new Aligned[2]);
    ::operator delete(Escape(::operator new(5009)));
    ::operator delete(Escape(::operator new(5011)), std::nothrow);
    ::operator delete (Escape(::operator new (5021, std::align_val_t{256})), std::align_val_t{256});
  }
}
}

int main(int count, char**) {
  keep_new();
  keep_nothrow();
  keep_aligned();
  give_back();
  if (count > 1) return 0;  // an allocator without exceptions aborts where the others throw
  const volatile size_t too_much = SIZE_MAX / 4;
  try {
    Escape(new char[too_much]);
  } catch (const std::bad_alloc&) {
    std::puts("bad_alloc");
  }
  std::printf("%p\n", static_cast<void*>(new (std::nothrow) char[too_much]));
  std::set_new_handler([] {
    std::puts("handler");
    std::set_new_handler(nullptr);
  });
  try {
    Escape(new char[too_much]);
  } catch (const std::bad_alloc&) {
    std::puts("bad_alloc again");
  }
  return 0;
}
