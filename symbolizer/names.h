// Outside node. Makes demangled C++ and Rust names short enough for tables.
#pragma once

#include <string>
#include <string_view>

namespace nodeleak::symbolizer {

// What `symbol` demangles to (C++ Itanium, Rust legacy and v0), or `symbol` itself. Never fails; symbol versions
// ("@@GLIBC_2.17") must be gone already.
std::string Demangle(std::string_view symbol);

// Without parameter list, return type, long template arguments, ABI tags, "(anonymous namespace)::", trailing
// cv-qualifiers and clone marks:
//   "v8::Maybe<bool> node::Foo<int>::Bar(int) const [clone .cold]" -> "node::Foo<int>::Bar"
//   "foo()::{lambda(int)#1}::operator()(int) const"                -> "foo::lambda"
// Text that is not a C++ name comes back as it is.
std::string ShortFunctionName(const std::string& demangled);

}  // namespace nodeleak::symbolizer
