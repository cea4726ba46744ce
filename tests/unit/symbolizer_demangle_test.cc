#include <string>

#include "gtest/gtest.h"
#include "symbolizer/names.h"
#include "symbolizer/rust_demangle.h"

namespace nodeleak::symbolizer {
namespace {

struct Case {
  const char* mangled;
  const char* demangled;
};

TEST(Demangle, CppNames) {
  EXPECT_EQ(Demangle("_ZN4node6Buffer3NewEPN2v87IsolateEm"), "node::Buffer::New(v8::Isolate*, unsigned long)");
  EXPECT_EQ(Demangle("_Znwm"), "operator new(unsigned long)");
  EXPECT_EQ(Demangle("_ZN3fooEv.llvm.1234"), "foo()");
}

TEST(Demangle, PlainNamesStayAsTheyAre) {
  EXPECT_EQ(Demangle("malloc"), "malloc");
  EXPECT_EQ(Demangle("f"), "f");  // a type, to __cxa_demangle
  EXPECT_EQ(Demangle("i"), "i");
  EXPECT_EQ(Demangle(""), "");
  EXPECT_EQ(Demangle("_ZN"), "_ZN");
  EXPECT_EQ(Demangle("_R"), "_R");
  EXPECT_EQ(Demangle("Builtins_CallFunction_ReceiverIsAny"), "Builtins_CallFunction_ReceiverIsAny");
}

TEST(DemangleRustLegacy, DropsTheHashAndResolvesEscapes) {
  constexpr Case kCases[] = {
      {"_ZN4core3fmt5Write9write_fmt17h05c5dfc55b733104E", "core::fmt::Write::write_fmt"},
      {"_ZN6mytest1m10W$LT$T$GT$3new17h26b9365856014ca2E", "mytest::m::W<T>::new"},
      {"_ZN6mytest4main28_$u7b$$u7b$closure$u7d$$u7d$17h799f57b0793e5315E", "mytest::main::{{closure}}"},
      {"_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE",
       "<Test + 'static as foo::Bar<Test>>::bar"},
      {"_ZN4core3ops20_$RF$$C$$BP$$LP$$RP$1f17h620ee99f8eadb30aE.cold", "core::ops::&,*()::f"},
  };
  for (const Case& one : kCases) EXPECT_EQ(DemangleRustLegacy(one.mangled).value_or("(none)"), one.demangled);
}

TEST(DemangleRustLegacy, LeavesCppAlone) {
  EXPECT_FALSE(DemangleRustLegacy("_ZN4node6Buffer3NewEPN2v87IsolateEm"));
  EXPECT_FALSE(DemangleRustLegacy("_ZN3foo17h0000000000000000E"));  // no hash has one digit only
  EXPECT_FALSE(DemangleRustLegacy("_ZN3foo99barE"));
  EXPECT_FALSE(DemangleRustLegacy("_ZN17h05c5dfc55b733104E"));
  EXPECT_FALSE(DemangleRustLegacy("_ZN99999999999999999999999foo17h05c5dfc55b733104E"));
}

// Symbols of rustc 1.95 and published examples of RFC 2603, then shapes written by hand from its grammar
// (https://doc.rust-lang.org/rustc/symbol-mangling/v0.html).
TEST(DemangleRustV0, FollowsTheGrammar) {
  constexpr Case kCases[] = {
      {"_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"},
      {"_RNvC6_123foo3bar", "123foo::bar"},
      {"_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"},
      {"_RINvCs7QNBc6PXTIm_7mycrate7examplelECs1_5other", "mycrate::example::<i32>"},
      {"_RNCNCNgCs6DXkGYLi8lr_2cc5spawn00B5_", "cc::spawn::{closure#0}::{closure#0}"},
      {"_RINvNtC3std3mem8align_ofNtNtC3std3mem12DiscriminantE", "std::mem::align_of::<std::mem::Discriminant>"},
      {"_RNvMCsdqKG2qUbBwp_6mytestINtB2_1AKj0_Kb0_Kca_Ka7f_E2goB2_", "<mytest::A<0, false, '\\n', 127>>::go"},
      {"_RNvMC6mytestINtB2_1AKj3_Kb1_Kc78_Kan5_E2go", "<mytest::A<3, true, 'x', -5>>::go"},
      {"_RINvCsdqKG2qUbBwp_6mytest9str_constKRe68c3a96c6c6f22_EB2_", "mytest::str_const::<{\"h\xc3\xa9llo\\\"\"}>"},
      {"_RNSNvYNCNvCsdqKG2qUbBwp_6mytest4main0INtNtNtCs8NwYtU1Mohg_4core3ops8function6FnOnceTRShPhEE9call_once"
       "6vtableB8_",
       "<mytest::main::{closure#0} as core::ops::function::FnOnce<(&[u8], *const u8)>>::call_once::{shim:vtable#0}"},
      {"_RNCNCNvCsdqKG2qUbBwp_6mytest4mains0_00B5_.llvm.99", "mytest::main::{closure#2}::{closure#0}"},
      // Types.
      {"_RINvC1c1gThEE", "c::g::<(u8,)>"},
      {"_RINvC1c1gTunfEE", "c::g::<((), i128, f32)>"},
      {"_RINvC1c1gAhj7_E", "c::g::<[u8; 7]>"},
      {"_RINvC1c1gRL_eE", "c::g::<&str>"},
      {"_RINvC1c1gQSxE", "c::g::<&mut [i64]>"},
      {"_RINvC1c1gFUKCjEzE", "c::g::<unsafe extern \"C\" fn(usize) -> !>"},
      {"_RINvC1c1gFG0_RL1_hQL0_eERL1_hE", "c::g::<for<'a, 'b> fn(&'a u8, &'b mut str) -> &'a u8>"},
      {"_RINvC1c1gFK15rust_intrinsicsEuE", "c::g::<extern \"rust-intrinsics\" fn()>"},
      {"_RINvC1c1gDNtC1c8Iteratorp4ItemhEL_E", "c::g::<dyn c::Iterator<Item = u8>>"},
      {"_RINvC1c1gDINtC1c2FnThEEp6OutputuNtC1c4SendEL_E", "c::g::<dyn c::Fn<(u8,), Output = ()> + c::Send>"},
      {"_RINvC1c1gDG_INtC1c2FnTRL0_hEEEL_E", "c::g::<dyn for<'a> c::Fn<(&'a u8,)>>"},
      // Constants.
      {"_RINvC1c1gKjffffffffffffffff_E", "c::g::<18446744073709551615>"},
      {"_RINvC1c1gKo10000000000000000_E", "c::g::<0x10000000000000000>"},
      {"_RINvC1c1gKpE", "c::g::<_>"},
      {"_RINvC1c1gKAh1_h2_EE", "c::g::<{[1, 2]}>"},
      {"_RINvC1c1gKThEE", nullptr},  // a constant needs its digits
      {"_RINvC1c1gKVNtC1c1Ss_1xh1_EE", nullptr},
      {"_RINvC1c1gKVNtC1c1SS1xh1_EE", "c::g::<{c::S { x: 1 }}>"},
      {"_RINvC1c1gKVNvNtC1c1O4NoneUE", "c::g::<{c::O::None}>"},
      // Punycode.
      {"_RNvC1cu8gdel_5qa",
       "c::g\xc3\xb6"
       "del"},
      {"_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
       "utf8_idents::\xe1\x83\xa1\xe1\x83\x90\xe1\x83\xad\xe1\x83\x9b\xe1\x83\x94\xe1\x83\x9a\xe1\x83\x90\xe1\x83\x93_"
       "\xe1\x83\x92\xe1\x83\x94\xe1\x83\x9b\xe1\x83\xa0\xe1\x83\x98\xe1\x83\x94\xe1\x83\x9a\xe1\x83\x98_"
       "\xe1\x83\xa1\xe1\x83\x90\xe1\x83\x93\xe1\x83\x98\xe1\x83\x9a\xe1\x83\x98"},
  };
  for (const Case& one : kCases) {
    if (one.demangled == nullptr) {
      EXPECT_FALSE(DemangleRustV0(one.mangled)) << one.mangled;
    } else {
      EXPECT_EQ(DemangleRustV0(one.mangled).value_or("(none)"), one.demangled) << one.mangled;
    }
  }
}

TEST(DemangleRustV0, RefusesHostileText) {
  EXPECT_FALSE(DemangleRustV0("_RB_"));          // refers to itself
  EXPECT_FALSE(DemangleRustV0("_RNvB_3foo"));    // contains itself
  EXPECT_FALSE(DemangleRustV0("_RNvC1c"));       // ends early
  EXPECT_FALSE(DemangleRustV0("_RNvC1c99foo"));  // longer than the text
  EXPECT_FALSE(DemangleRustV0("_R1NvC1c3foo"));  // a later version
  EXPECT_FALSE(DemangleRustV0("_RNvC1c3foo!"));
  EXPECT_FALSE(DemangleRustV0("_RINvC1c1gRL0_hE"));  // lifetime that nothing binds
  EXPECT_FALSE(DemangleRustV0("_RINvC1c1gKczzzz_E"));
  EXPECT_FALSE(DemangleRustV0("_RINvC1c1gFGzzzzzzzzzz_EuE"));
  EXPECT_FALSE(DemangleRustV0("_RINvC1c1g" + std::string(100'003, 'R') + "hE"));
  EXPECT_FALSE(DemangleRustV0("_RINvC1c1g" + std::string(100'003, 'T')));
}

TEST(DemangleRustV0, BoundsWhatBackReferencesMultiply) {
  // Each tuple holds the one before it twice: 2^40 elements.
  std::string text = "INvC1c1gT";
  auto base62 = [](size_t value) {
    const char* digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    std::string number;
    if (value == 0) return std::string("_");
    for (--value;; value /= 62) {
      number.insert(number.begin(), digits[value % 62]);
      if (value < 62) return number + "_";
    }
  };
  size_t previous = text.size();
  text += "ThhE";
  for (int i = 0; i < 40; ++i) {
    const size_t here = text.size();
    text += "TB" + base62(previous) + "B" + base62(previous) + "E";
    previous = here;
  }
  text += "EE";
  EXPECT_FALSE(DemangleRustV0("_R" + text));
}

TEST(DemangleRustV0, EveryTruncationIsSafe) {
  const std::string whole =
      "_RNvXsl_NtNtCs8NwYtU1Mohg_4core5panic11unwind_safeINtB5_16AssertUnwindSafeNCNCINvNtNtCsi4IsKQVxMg0_3std6thread"
      "9lifecycle15spawn_uncheckedNCNvCsdqKG2qUbBwp_6mytest4mains0_0uEs_00EINtNtNtB9_3ops8function6FnOnceuE9call_once"
      "B2e_";
  EXPECT_EQ(DemangleRustV0(whole).value_or("(none)"),
            "<core::panic::unwind_safe::AssertUnwindSafe<std::thread::lifecycle::spawn_unchecked<mytest::main::"
            "{closure#2}, ()>::{closure#1}::{closure#0}> as core::ops::function::FnOnce<()>>::call_once");
  for (size_t length = 0; length < whole.size(); ++length) {
    std::string cut = whole.substr(0, length);
    (void)DemangleRustV0(cut);
    for (char c : {'B', 'E', '_', 'I', '9'}) (void)DemangleRustV0(cut + c + whole.substr(length + 1));
  }
}

}  // namespace
}  // namespace nodeleak::symbolizer
