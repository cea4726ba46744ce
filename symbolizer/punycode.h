// Outside node. Punycode (RFC 3492) as Rust's v0 mangling uses it: the delimiter is "_", not "-".
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nodeleak::symbolizer {

// UTF-8, or nothing when `text` is not valid punycode.
std::optional<std::string> DecodeRustPunycode(std::string_view text);

}  // namespace nodeleak::symbolizer
