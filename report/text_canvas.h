// Outside node. Collects the lines of a text report; knows how wide they may be and whether there is colour.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "report/absl_view.h"
#include "report/text_layout.h"
#include "report/utf8.h"

namespace nodeleak::report {

class TextCanvas {
 public:
  TextCanvas(int columns, bool color) : columns_(columns), color_(color) {}

  int columns() const { return columns_; }
  void Line(std::string_view text) { absl::StrAppend(&text_, View(text), "\n"); }
  // `prefix` on the first line, as many blanks on the following.
  void Wrapped(std::string_view prefix, std::string_view text) {
    Line(absl::StrCat(View(prefix), Wrap(text, DisplayWidth(prefix), columns_)));
  }
  std::string Bold(std::string_view text) const { return Styled("\x1b[1m", text); }
  std::string Alarm(std::string_view text) const { return Styled("\x1b[1;31m", text); }
  std::string Take() { return std::move(text_); }

 private:
  std::string Styled(std::string_view style, std::string_view text) const {
    return color_ ? absl::StrCat(View(style), View(text), "\x1b[0m") : std::string(text);
  }

  std::string text_;
  int columns_;
  bool color_;
};

}  // namespace nodeleak::report
