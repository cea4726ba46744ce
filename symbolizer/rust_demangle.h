// Outside node. Rust symbol names, both schemes. Never fails on hostile text: depth and length are bounded.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nodeleak::symbolizer {

// "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE" -> "core::fmt::Write::write_fmt"
std::optional<std::string> DemangleRustLegacy(std::string_view symbol);

// "_RNvNtCs1234_7mycrate3foo3bar" -> "mycrate::foo::bar"
std::optional<std::string> DemangleRustV0(std::string_view symbol);

// Either; nothing when the symbol is neither.
std::optional<std::string> DemangleRust(std::string_view symbol);

}  // namespace nodeleak::symbolizer
