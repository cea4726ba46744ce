// One pass over a demangled name that keeps the components of the qualified name and skips what stands around them.
#include <algorithm>
#include <utility>
#include <vector>

#include "symbolizer/names.h"

namespace nodeleak::symbolizer {
namespace {

constexpr size_t kMaxTemplateArguments = 24;  // longer ones become <...>
constexpr std::string_view kElided = "<...>";
constexpr int kMaxNesting = 16;  // of names inside declarators: void (*(*f())())()

constexpr std::string_view kPrefixes[] = {
    "non-virtual thunk to ", "virtual thunk to ",      "covariant return thunk to ",
    "guard variable for ",   "transaction clone for ", "non-transaction clone for ",
};

// What compilers append to the symbol of a part or variant of a function.
constexpr std::string_view kCloneMarks[] = {".cold",       ".part.",  ".isra.",  ".constprop.", ".llvm.", ".lto_priv.",
                                            ".localalias", ".clone.", ".resume", ".destroy",    ".actor", ".warm"};

// Operators whose text has brackets that are none; longer ones before their prefixes.
constexpr std::string_view kSymbolOperators[] = {
    "()", "[]", "<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "&&", "||",
    "++", "--", "+=",  "-=",  "*=",  "/=",  "%=", "&=", "|=", "^=", "==", "!=", "<",
    ">",  "+",  "-",   "*",   "/",   "%",   "^",  "&",  "|",  "~",  "!",  "=",  ","};
// After "operator ": these are no conversions.
constexpr std::string_view kWordOperators[] = {"new[]", "delete[]", "new", "delete", "co_await"};

bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

std::string_view WithoutMarks(std::string_view text) {
  for (std::string_view prefix : kPrefixes) {
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  }
  if (size_t clone = text.find(" [clone "); clone != std::string_view::npos) text = text.substr(0, clone);
  for (std::string_view mark : kCloneMarks) {
    size_t at = text.find(mark);
    // Only a plain symbol has its marks at the end of a word ("foo.cold", "foo.cold.3").
    if (at != std::string_view::npos && at > 0 && text.find_first_of(" (<") == std::string_view::npos) {
      text = text.substr(0, at);
    }
  }
  return text;
}

// The position after the bracket that closes the one at `start`; npos when none does. Inside of (), > may be an
// operator; inside of <>, -> and operator names are no brackets.
size_t SkipBrackets(std::string_view text, size_t start) {
  std::vector<char> open;
  for (size_t i = start; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '(' || c == '[' || c == '{') open.push_back(c);
    if (c == '<' && (open.empty() || open.back() != '(')) open.push_back(c);
    if (c == '<' && !open.empty() && open.back() == '(' && i > 0 && IsWord(text[i - 1])) open.push_back(c);
    if (c == '>' && !open.empty() && open.back() == '<' && text[i - 1] != '-') open.pop_back();
    const char wanted = c == ')' ? '(' : c == ']' ? '[' : c == '}' ? '{' : '\0';
    if (wanted != '\0') {
      while (!open.empty() && open.back() == '<' && wanted != '<') open.pop_back();  // "<" was an operator
      if (open.empty() || open.back() != wanted) return std::string_view::npos;
      open.pop_back();
    }
    if (open.empty()) return i + 1;
  }
  return std::string_view::npos;
}

class Shortener {
 public:
  Shortener(std::string_view text, int nesting) : text_(text), nesting_(nesting) {}

  std::string Run() {
    while (position_ < text_.size() && !done_) Step();
    EndComponent();
    std::string name;
    for (const std::string& component : components_) {
      if (!name.empty()) name += "::";
      name += component;
    }
    return name;
  }

 private:
  bool At(std::string_view word) const { return text_.substr(position_).starts_with(word); }

  void Step() {
    switch (text_[position_]) {
      case ' ':
        return StartOver();
      case ':':
        return Colon();
      case '<':
        return TemplateArguments();
      case '(':
        return Parenthesis();
      case '{':
        return Brace();
      case '[':
        return SkipTo(SkipBrackets(text_, position_));  // [abi:cxx11]
      default:
        break;
    }
    const bool word_starts = position_ == 0 || !IsWord(text_[position_ - 1]);
    if (word_starts && At("operator") && !(position_ + 8 < text_.size() && IsWord(text_[position_ + 8]))) {
      return Operator();
    }
    component_.push_back(text_[position_++]);
  }

  void SkipTo(size_t position) {
    if (position == std::string_view::npos) {
      position_ = text_.size();
    } else {
      position_ = position;
    }
  }

  // What was read so far was a return type, or a qualifier of it.
  void StartOver() {
    ++position_;
    if (component_ == "decltype") return;  // "decltype (expression) name"
    component_.clear();
    components_.clear();
  }

  void Colon() {
    if (!At("::")) {
      component_.push_back(text_[position_++]);
      return;
    }
    position_ += 2;
    // Rust: "foo::<u8>" are the arguments of foo.
    if (position_ < text_.size() && text_[position_] == '<' && !component_.empty()) {
      const size_t end = SkipBrackets(text_, position_);
      if (end == std::string_view::npos) return SkipTo(end);
      component_ += end - position_ <= kMaxTemplateArguments
                        ? "::" + std::string(text_.substr(position_, end - position_))
                        : "::" + std::string(kElided);
      position_ = end;
      return;
    }
    EndComponent();
  }

  void EndComponent() {
    if (component_.empty()) return;
    const bool after_lambda = !components_.empty() && components_.back() == "lambda";
    // How a lambda is called, not what it is.
    if (!(after_lambda && (component_.starts_with("operator()") || component_ == "_FUN"))) {
      components_.push_back(std::move(component_));
    }
    component_.clear();
  }

  void TemplateArguments() {
    const size_t end = SkipBrackets(text_, position_);
    if (end == std::string_view::npos) return SkipTo(end);
    const std::string_view arguments = text_.substr(position_, end - position_);
    position_ = end;
    // Rust: <Type as Trait>::function, <Type>::function.
    if (component_.empty() && components_.empty()) {
      component_ = ImplementedType(arguments);
      return;
    }
    component_ += arguments.size() <= kMaxTemplateArguments ? arguments : kElided;
  }

  // "<a::b::Vec<T> as c::Write>" -> "<Vec<T> as Write>"
  static std::string ImplementedType(std::string_view brackets) {
    std::string_view inside = brackets.substr(1, brackets.size() - 2);
    size_t as = std::string_view::npos;
    for (size_t i = 0; i < inside.size(); ++i) {
      if (inside[i] == '<' || inside[i] == '(' || inside[i] == '[') {
        const size_t end = SkipBrackets(inside, i);
        if (end == std::string_view::npos) break;
        i = end - 1;
      } else if (inside.substr(i).starts_with(" as ")) {
        as = i;
        break;
      }
    }
    // "<a::b::Vec<T>>" -> "a::b::Vec<T>"; "<[T]>" stays.
    if (as == std::string_view::npos && !inside.empty() && IsWord(inside[0])) return ShortArguments(inside);
    if (brackets.size() <= kMaxTemplateArguments) return std::string(brackets);
    if (as == std::string_view::npos) return "<" + LastPart(inside) + ">";
    return "<" + LastPart(inside.substr(0, as)) + " as " + LastPart(inside.substr(as + 4)) + ">";
  }

  static std::string ShortArguments(std::string_view type) {
    const size_t open = std::min(type.find('<'), type.size());
    const std::string_view arguments = type.substr(open);
    return std::string(type.substr(0, open)) +
           std::string(arguments.size() <= kMaxTemplateArguments ? arguments : kElided);
  }

  // The last component of a path, with its prefix (&, *mut, dyn) left out.
  static std::string LastPart(std::string_view type) {
    size_t begin = 0;
    size_t end = type.size();
    for (size_t i = 0; i < type.size(); ++i) {
      if (type[i] == '<' || type[i] == '(' || type[i] == '[') {
        if (i == 0) return type.size() <= kMaxTemplateArguments ? std::string(type) : "_";
        end = i;
        break;
      }
      if (type.substr(i).starts_with("::")) begin = i + 2;
    }
    std::string part(type.substr(begin, end - begin));
    if (end == type.size()) return part;
    const std::string_view rest = type.substr(end);
    return part + std::string(rest.size() <= kMaxTemplateArguments ? rest : kElided);
  }

  void Parenthesis() {
    constexpr std::string_view kAnonymous = "(anonymous namespace)";
    if (At(kAnonymous)) {
      position_ += kAnonymous.size();
      if (At("::")) {
        position_ += 2;
      } else {
        component_ += kAnonymous;
      }
      return;
    }
    const size_t end = SkipBrackets(text_, position_);
    if (end == std::string_view::npos) return SkipTo(end);
    if (component_ == "decltype" && components_.empty()) {  // a return type
      position_ = end;
      component_.clear();
      return;
    }
    if (component_.empty() && components_.empty()) return Declarator(end);
    position_ = end;
    AfterParameters();
  }

  // "void (*name(int))(char)": the name is inside of the parentheses.
  void Declarator(size_t end) {
    std::string_view inside = text_.substr(position_ + 1, end - position_ - 2);
    // "void (*" or, for pointers to members, "void (Class::*"
    const size_t star = inside.find_first_of("*&");
    if (star != std::string_view::npos && inside.find_first_of("(<") > star) inside.remove_prefix(star);
    while (!inside.empty() && (inside[0] == '*' || inside[0] == '&' || inside[0] == ' ')) inside.remove_prefix(1);
    if (nesting_ < kMaxNesting) component_ = Shortener(inside, nesting_ + 1).Run();
    done_ = true;
  }

  // A parameter list ends the name, unless something is defined inside of the function: "foo(int) const::{lambda()#1}".
  void AfterParameters() {
    static constexpr std::string_view kQualifiers[] = {" const", " volatile", " &&", " &", " noexcept"};
    for (bool again = true; again;) {
      again = false;
      for (std::string_view qualifier : kQualifiers) {
        if (!At(qualifier)) continue;
        position_ += qualifier.size();
        again = true;
      }
      if (At("[abi:")) {
        SkipTo(SkipBrackets(text_, position_));
        again = true;
      }
    }
    if (!At("::")) done_ = true;
  }

  // {lambda(int)#1}, {unnamed type#1}, {default arg#1}, Rust: {closure#0}, {{closure}}, {impl#3}
  void Brace() {
    const size_t end = SkipBrackets(text_, position_);
    if (end == std::string_view::npos) return SkipTo(end);
    std::string_view brace = text_.substr(position_, end - position_);
    position_ = end;
    if (brace.starts_with("{lambda")) {
      component_ = "lambda";
    } else if (brace.starts_with("{unnamed")) {
      component_ = "(unnamed)";
    } else if (brace.starts_with("{default arg")) {
      component_.clear();
      if (At("::")) position_ += 2;
    } else if (brace.starts_with("{{") && brace.ends_with("}}")) {
      component_ = brace.substr(1, brace.size() - 2);
    } else {
      component_ = brace;
    }
  }

  void Operator() {
    position_ += std::string_view("operator").size();
    component_ = "operator";
    if (At(" ")) return WordOperator();
    if (At("\"\"")) {
      while (position_ < text_.size() && text_[position_] != '(' && text_[position_] != '<') {
        component_.push_back(text_[position_++]);
      }
      return;
    }
    for (std::string_view symbol : kSymbolOperators) {
      if (!At(symbol)) continue;
      component_ += symbol;
      position_ += symbol.size();
      break;
    }
    // "operator< <int>(...)": a space keeps the brackets apart.
    if (At(" <")) ++position_;
  }

  void WordOperator() {
    for (std::string_view word : kWordOperators) {
      if (!text_.substr(position_ + 1).starts_with(word)) continue;
      component_ = "operator " + std::string(word);
      position_ += 1 + word.size();
      return;
    }
    // A conversion: its type ends at the parameter list.
    const size_t start = position_;
    while (position_ < text_.size() && text_[position_] != '(') {
      SkipTo(text_[position_] == '<' || text_[position_] == '[' ? SkipBrackets(text_, position_) : position_ + 1);
    }
    const std::string_view type = text_.substr(start, position_ - start);
    component_ += type.size() <= kMaxTemplateArguments ? std::string(type) : " " + LastPart(type.substr(1));
  }

  std::string_view text_;
  int nesting_;
  size_t position_ = 0;
  bool done_ = false;
  std::string component_;
  std::vector<std::string> components_;
};

}  // namespace

std::string ShortFunctionName(const std::string& demangled) {
  std::string name = Shortener(WithoutMarks(demangled), 0).Run();
  return name.empty() ? demangled : name;
}

}  // namespace nodeleak::symbolizer
