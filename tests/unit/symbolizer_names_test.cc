#include "gtest/gtest.h"
#include "symbolizer/names.h"

namespace nodeleak::symbolizer {
namespace {

struct Case {
  const char* full;
  const char* brief;
};

void ExpectShort(const Case& one) { EXPECT_EQ(ShortFunctionName(one.full), one.brief) << one.full; }

TEST(ShortFunctionName, DropsParametersAndReturnTypes) {
  constexpr Case kCases[] = {
      {"malloc", "malloc"},
      {"", ""},
      {"node::Buffer::New(v8::Isolate*, unsigned long)", "node::Buffer::New"},
      {"v8::internal::BackingStore::Allocate(v8::internal::Isolate*, unsigned long, v8::internal::SharedFlag)",
       "v8::internal::BackingStore::Allocate"},
      {"v8::Maybe<bool> node::Foo<int>::Bar(int) const [clone .cold]", "node::Foo<int>::Bar"},
      {"unsigned long const& a::f<1>(int)", "a::f<1>"},
      {"std::enable_if<(1 > 0), int>::type ns::f<int>(int)", "ns::f<int>"},
      {"decltype (a.b()) ns::g<int>(int)", "ns::g<int>"},
      {"node::X::f() const &", "node::X::f"},
      {"node::X::~X()", "node::X::~X"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, DropsLongTemplateArguments) {
  constexpr Case kCases[] = {
      {"std::vector<int, std::allocator<int> >::push_back(int const&)", "std::vector<...>::push_back"},
      {"std::any_of<bool (*)(char)>(int)", "std::any_of<bool (*)(char)>"},
      {"std::_Function_handler<void (), a::B::C(int const&) const::{lambda()#2}>::_M_manager(std::_Any_data&)",
       "std::_Function_handler<...>::_M_manager"},
      {"ns::Less<&(ns::operator<(int, int))>::f()", "ns::Less<...>::f"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, KeepsOperators) {
  constexpr Case kCases[] = {
      {"operator new(unsigned long)", "operator new"},
      {"operator new[](unsigned long, std::nothrow_t const&)", "operator new[]"},
      {"operator delete[](void*)", "operator delete[]"},
      {"a::X::operator()(int) const", "a::X::operator()"},
      {"a::X::operator[](int)", "a::X::operator[]"},
      {"bool a::operator< <int>(a::X<int> const&, int)", "a::operator<<int>"},
      {"std::ostream& operator<< <char>(std::ostream&, char)", "operator<<<char>"},
      {"a::X::operator->() const", "a::X::operator->"},
      {"a::X::operator<=>(a::X const&) const", "a::X::operator<=>"},
      {"a::X::operator bool() const", "a::X::operator bool"},
      {"a::X::operator char const*() const", "a::X::operator char const*"},
      {"a::X::operator std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >() const",
       "a::X::operator basic_string<...>"},
      {"operator\"\" _km(long double)", "operator\"\" _km"},
      {"operator_like(int)", "operator_like"},
      {"my_operator(int)", "my_operator"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, NamesLambdasByTheFunctionTheyAreIn) {
  constexpr Case kCases[] = {
      {"foo()::{lambda()#1}::operator()() const", "foo::lambda"},
      {"foo(int) const::{lambda(int)#1}::operator()(int) const::{lambda()#2}::operator()() const",
       "foo::lambda::lambda"},
      {"auto ns::f(int)::{lambda(auto:1 const&)#1}::operator()<int>(int const&) const", "ns::f::lambda"},
      {"ns::f(std::function<bool (int, int)>) const::{lambda(int, bn_gencb_st*)#1}::_FUN(int, bn_gencb_st*)",
       "ns::f::lambda"},
      {"ns::f()::Local::g(int)", "ns::f::Local::g"},
      {"ns::{unnamed type#1}::f()", "ns::(unnamed)::f"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, DropsMarks) {
  constexpr Case kCases[] = {
      {"(anonymous namespace)::f(int)", "f"},
      {"node::(anonymous namespace)::Parse(char const*)", "node::Parse"},
      {"int (anonymous namespace)::f(int)", "f"},
      {"std::__cxx11::to_string[abi:cxx11](int)", "std::__cxx11::to_string"},
      {"non-virtual thunk to node::X::~X()", "node::X::~X"},
      {"parse_header.cold", "parse_header"},
      {"parse_header.isra.0", "parse_header"},
      {"parse_header.constprop.0.cold", "parse_header"},
      {"icu::f(int) [clone .part.0] [clone .isra.0]", "icu::f"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, FindsTheNameInsideOfFunctionPointers) {
  constexpr Case kCases[] = {
      {"void (*signal_handler(int, void (*)(int)))(int)", "signal_handler"},
      {"void (*ns::get<int>(int))(char)", "ns::get<int>"},
      {"int (ns::X::*ns::member(int))(char)", "ns::member"},
      {"int (&ns::array())[3]", "ns::array"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, Rust) {
  constexpr Case kCases[] = {
      {"core::fmt::Write::write_fmt", "core::fmt::Write::write_fmt"},
      {"<tempfile::file::NamedTempFile>::reopen", "tempfile::file::NamedTempFile::reopen"},
      {"<alloc::vec::Vec<u8>>::push", "alloc::vec::Vec<u8>::push"},
      {"<rustc_passes::dead::MarkSymbolVisitor as rustc_hir::intravisit::Visitor>::visit_trait_ref",
       "<MarkSymbolVisitor as Visitor>::visit_trait_ref"},
      {"<u32 as core::fmt::Octal>::fmt", "<u32 as Octal>::fmt"},
      {"<[u8]>::len", "<[u8]>::len"},
      {"core::mem::size_of_val::<u8>", "core::mem::size_of_val::<u8>"},
      {"core::mem::size_of_val::<alloc::vec::Vec<alloc::string::String>>", "core::mem::size_of_val::<...>"},
      {"mytest::main::{closure#2}::{closure#0}", "mytest::main::{closure#2}::{closure#0}"},
      {"mytest::main::{{closure}}", "mytest::main::{closure}"},
  };
  for (const Case& one : kCases) ExpectShort(one);
}

TEST(ShortFunctionName, SurvivesTextThatIsNoName) {
  for (const char* text : {"(", ")", "<", ">", "((((((((", "a<b(c", "a(b", "{", "}", "::", "operator", "operator ", "[",
                           "<a as", "a::<", "(*(*(*(*(*(*(", " ", "{lambda"}) {
    (void)ShortFunctionName(text);
  }
  std::string deep(50'021, '(');
  (void)ShortFunctionName(deep + "*" + deep);
}

}  // namespace
}  // namespace nodeleak::symbolizer
