// Rust's v0 mangling, RFC 2603 (https://doc.rust-lang.org/rustc/symbol-mangling/v0.html): a recursive descent over its
// grammar that prints as it reads. Each function below is one production.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "symbolizer/rust_demangle.h"
#include "symbolizer/rust_v0_reader.h"
#include "symbolizer/utf8.h"

namespace nodeleak::symbolizer {
namespace {

constexpr uint64_t kMaxBoundLifetimes = 1024;

struct BasicType {
  char tag;
  std::string_view name;
};
constexpr BasicType kBasicTypes[] = {
    {'a', "i8"},    {'b', "bool"},  {'c', "char"}, {'d', "f64"}, {'e', "str"},  {'f', "f32"},  {'h', "u8"},
    {'i', "isize"}, {'j', "usize"}, {'l', "i32"},  {'m', "u32"}, {'n', "i128"}, {'o', "u128"}, {'p', "_"},
    {'s', "i16"},   {'t', "u16"},   {'u', "()"},   {'v', "..."}, {'x', "i64"},  {'y', "u64"},  {'z', "!"},
};

std::string_view BasicTypeName(char tag) {
  for (const BasicType& type : kBasicTypes) {
    if (type.tag == tag) return type.name;
  }
  return "";
}

class V0Demangler : private RustV0Reader {
 public:
  // `text`: the symbol after "_R", where back references count from.
  explicit V0Demangler(std::string_view text) : RustV0Reader(text) {}

  std::optional<std::string> Run() {
    if (!IsUpper(Peek())) return std::nullopt;  // a digit would be a later version of the scheme
    Path(true);
    if (IsUpper(Peek())) Quietly([this] { Path(false); });  // the crate that instantiated a generic
    const bool at_end = position_ == text_.size() || Peek() == '.' || Peek() == '$';
    if (failed_ || !at_end) return std::nullopt;
    return std::move(out_);
  }

 private:
  // In a value ("foo::<u8>") generic arguments stand after "::", in a type ("Vec<u8>") they do not.
  void Path(bool in_value) {
    if (OpenPath(in_value, false)) Print(">");
  }

  // With `leave_open`, the generic arguments are left without their ">", for more to follow; true when they are.
  bool OpenPath(bool in_value, bool leave_open) {
    Nesting nesting(*this);
    if (failed_) return false;
    switch (Next()) {
      case 'C':
        Print(DisambiguatedIdentifier().name);  // the disambiguator is the hash of the crate
        return false;
      case 'N':
        NestedPath(in_value);
        return false;
      case 'M':
        ImplPath();
        Print("<");
        Type();
        Print(">");
        return false;
      case 'X':
        ImplPath();
        [[fallthrough]];
      case 'Y':
        Print("<");
        Type();
        Print(" as ");
        Path(false);
        Print(">");
        return false;
      case 'I':
        Path(in_value);
        Print(in_value ? "::<" : "<");
        ListUntilE([this] { GenericArgument(); });
        if (leave_open) return true;
        Print(">");
        return false;
      case 'B': {
        bool open = false;
        BackReference([&] { open = OpenPath(in_value, leave_open); });
        return open;
      }
      default:
        failed_ = true;
        return false;
    }
  }

  // Where an impl stands says nothing to a reader: <Type> and <Type as Trait> do.
  void ImplPath() {
    OptionalBase62('s');
    Quietly([this] { Path(false); });
  }

  void NestedPath(bool in_value) {
    const char space = Next();
    if (!IsLower(space) && !IsUpper(space)) {
      failed_ = true;
      return;
    }
    Path(in_value);
    const RustIdentifier identifier = DisambiguatedIdentifier();
    if (IsLower(space)) {  // types, values: internal to the compiler
      if (!identifier.name.empty()) Print(absl::StrCat("::", identifier.name));
      return;
    }
    const std::string kind = space == 'C' ? "closure" : space == 'S' ? "shim" : std::string(1, space);
    Print(absl::StrCat("::{", kind, identifier.name.empty() ? "" : ":", identifier.name, "#", identifier.disambiguator,
                       "}"));
  }

  void GenericArgument() {
    if (Eat('L')) {
      Lifetime(Base62());
    } else if (Eat('K')) {
      Const(false);
    } else {
      Type();
    }
  }

  // De Bruijn index: 1 is the innermost bound lifetime, 0 an erased one.
  void Lifetime(uint64_t index) {
    if (index > bound_lifetimes_) {
      failed_ = true;
      return;
    }
    Print(LifetimeName(index));
  }

  std::string LifetimeName(uint64_t index) const {
    if (index == 0) return "'_";
    const uint64_t depth = bound_lifetimes_ - index;
    if (depth < 26) return absl::StrCat("'", std::string(1, static_cast<char>('a' + depth)));
    return absl::StrCat("'_", depth);
  }

  // "G" base-62-number binds lifetimes for what follows.
  template <typename Production>
  void InBinder(Production production) {
    const uint64_t count = OptionalBase62('G');
    if (count > kMaxBoundLifetimes || bound_lifetimes_ > kMaxBoundLifetimes) {
      failed_ = true;
      return;
    }
    if (count > 0) {
      Print("for<");
      for (uint64_t i = 0; i < count; ++i) {
        ++bound_lifetimes_;
        if (i > 0) Print(", ");
        Print(LifetimeName(1));
      }
      Print("> ");
    }
    production();
    bound_lifetimes_ -= count;
  }

  void Type() {
    Nesting nesting(*this);
    if (failed_) return;
    const char tag = Next();
    if (std::string_view name = BasicTypeName(tag); !name.empty()) return Print(name);
    switch (tag) {
      case 'A':
        Print("[");
        Type();
        Print("; ");
        Const(true);
        return Print("]");
      case 'S':
        Print("[");
        Type();
        return Print("]");
      case 'T': {
        Print("(");
        const size_t count = ListUntilE([this] { Type(); });
        return Print(count == 1 ? ",)" : ")");
      }
      case 'R':
      case 'Q':
        return Reference(tag == 'Q');
      case 'P':
        Print("*const ");
        return Type();
      case 'O':
        Print("*mut ");
        return Type();
      case 'F':
        return InBinder([this] { FunctionSignature(); });
      case 'D':
        return DynTrait();
      case 'B':
        return BackReference([this] { Type(); });
      default:
        --position_;
        Path(false);
    }
  }

  void Reference(bool is_mutable) {
    Print("&");
    if (Eat('L')) {
      if (const uint64_t lifetime = Base62(); lifetime != 0) {
        Lifetime(lifetime);
        Print(" ");
      }
    }
    if (is_mutable) Print("mut ");
    Type();
  }

  void FunctionSignature() {
    if (Eat('U')) Print("unsafe ");
    if (Eat('K')) {
      std::string abi = Eat('C') ? "C" : UndisambiguatedIdentifier();
      std::replace(abi.begin(), abi.end(), '_', '-');
      Print(absl::StrCat("extern \"", abi, "\" "));
    }
    Print("fn(");
    ListUntilE([this] { Type(); });
    Print(")");
    if (Eat('u')) return;  // returns ()
    Print(" -> ");
    Type();
  }

  void DynTrait() {
    Print("dyn ");
    InBinder([this] {
      size_t count = 0;
      while (!failed_ && !Eat('E')) {
        if (count++ > 0) Print(" + ");
        TraitWithBindings();
      }
    });
    if (!Eat('L')) {
      failed_ = true;
      return;
    }
    if (const uint64_t lifetime = Base62(); lifetime != 0) {
      Print(" + ");
      Lifetime(lifetime);
    }
  }

  // Iterator<Item = u8>: the bindings stand in the same brackets as the generic arguments.
  void TraitWithBindings() {
    bool open = OpenPath(false, true);
    while (Eat('p')) {
      Print(open ? ", " : "<");
      open = true;
      Print(absl::StrCat(UndisambiguatedIdentifier(), " = "));
      Type();
    }
    if (open) Print(">");
  }

  // In a value (array length, inside another constant) no braces are needed around an expression.
  void Const(bool in_value) {
    Nesting nesting(*this);
    if (failed_) return;
    const char tag = Next();
    switch (tag) {
      case 'p':
        return Print("_");
      case 'B':
        return BackReference([this, in_value] { Const(in_value); });
      case 'b':
        return ConstBool();
      case 'c':
        return ConstChar();
      case 'h':
      case 't':
      case 'm':
      case 'y':
      case 'o':
      case 'j':
        return ConstInteger();
      case 'a':
      case 's':
      case 'l':
      case 'x':
      case 'n':
      case 'i':
        if (Eat('n')) Print("-");
        return ConstInteger();
      default:
        if (!in_value) Print("{");
        ConstExpression(tag);
        if (!in_value) Print("}");
    }
  }

  void ConstExpression(char tag) {
    switch (tag) {
      case 'e':
        Print("*");
        return ConstString();
      case 'R':
      case 'Q':
        if (tag == 'R' && Eat('e')) return ConstString();
        Print(tag == 'R' ? "&" : "&mut ");
        return Const(true);
      case 'A':
        Print("[");
        ListUntilE([this] { Const(true); });
        return Print("]");
      case 'T': {
        Print("(");
        const size_t count = ListUntilE([this] { Const(true); });
        return Print(count == 1 ? ",)" : ")");
      }
      case 'V':
        return ConstOfNamedType();
      default:
        failed_ = true;
    }
  }

  void ConstOfNamedType() {
    Path(true);
    switch (Next()) {
      case 'U':
        return;
      case 'T':
        Print("(");
        ListUntilE([this] { Const(true); });
        return Print(")");
      case 'S':
        Print(" { ");
        ListUntilE([this] {
          Print(absl::StrCat(DisambiguatedIdentifier().name, ": "));
          Const(true);
        });
        return Print(" }");
      default:
        failed_ = true;
    }
  }

  void ConstInteger() {
    const std::string_view digits = WithoutLeadingZeros(HexDigits());
    if (digits.size() > 16) return Print(absl::StrCat("0x", std::string(digits)));
    Print(absl::StrCat(HexValue(digits)));
  }

  void ConstBool() {
    const std::string_view digits = WithoutLeadingZeros(HexDigits());
    if (digits.size() > 1 || HexValue(digits) > 1) failed_ = true;
    Print(HexValue(digits) == 1 ? "true" : "false");
  }

  void ConstChar() {
    const std::string_view digits = WithoutLeadingZeros(HexDigits());
    const uint64_t code = digits.size() > 6 ? UINT64_MAX : HexValue(digits);
    if (failed_ || !IsScalarValue(code)) {
      failed_ = true;
      return;
    }
    std::string quoted = "'";
    AppendEscaped(static_cast<char32_t>(code), '\'', quoted);
    Print(quoted + "'");
  }

  void ConstString() {
    const std::string_view digits = HexDigits();
    if (digits.size() % 2 != 0) failed_ = true;
    if (failed_) return;
    std::string quoted = "\"";
    for (size_t i = 0; i < digits.size(); i += 2) {
      const auto byte = static_cast<unsigned char>(HexValue(digits.substr(i, 2)));
      if (byte < 0x80) {
        AppendEscaped(byte, '"', quoted);
      } else {
        quoted.push_back(static_cast<char>(byte));  // UTF-8 as it is
      }
    }
    Print(quoted + "\"");
  }

  static void AppendEscaped(char32_t code, char quote, std::string& out) {
    switch (code) {
      case '\n':
        out += "\\n";
        return;
      case '\r':
        out += "\\r";
        return;
      case '\t':
        out += "\\t";
        return;
      default:
        break;
    }
    if (code < 0x20 || code == 0x7f) {
      absl::StrAppend(&out, "\\u{", absl::Hex(static_cast<uint32_t>(code)), "}");
      return;
    }
    if (code == '\\' || code == static_cast<unsigned char>(quote)) out.push_back('\\');
    AppendUtf8(code, out);
  }

  uint64_t bound_lifetimes_ = 0;
};

}  // namespace

std::optional<std::string> DemangleRustV0(std::string_view symbol) {
  if (!symbol.starts_with("_R")) return std::nullopt;
  return V0Demangler(symbol.substr(2)).Run();
}

}  // namespace nodeleak::symbolizer
