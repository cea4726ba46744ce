#include "report/text_layout.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "report/absl_view.h"
#include "report/utf8.h"

namespace nodeleak::report {
namespace {

constexpr char kEllipsis[] = "…";

std::vector<char32_t> CodePoints(std::string_view text) {
  std::vector<char32_t> code_points;
  while (!text.empty()) code_points.push_back(TakeCodePoint(&text));
  return code_points;
}

std::string Encode(const char32_t* first, const char32_t* last) {
  std::string out;
  for (; first != last; ++first) AppendCodePoint(*first, &out);
  return out;
}

// How many code points from the front (or, with reverse iterators, from the back) fit.
template <typename Iterator>
size_t CountFitting(Iterator first, Iterator last, int columns) {
  size_t count = 0;
  for (; first != last; ++first, ++count) {
    columns -= DisplayWidth(*first);
    if (columns < 0) break;
  }
  return count;
}

std::string Cut(std::string_view text, int front_columns, int back_columns) {
  const std::vector<char32_t> all = CodePoints(text);
  const size_t front = CountFitting(all.begin(), all.end(), front_columns);
  const size_t back = CountFitting(all.rbegin(), all.rend(), back_columns);
  return absl::StrCat(Encode(all.data(), all.data() + front), kEllipsis,
                      Encode(all.data() + all.size() - back, all.data() + all.size()));
}

}  // namespace

std::string_view EstimateMark(std::optional<uint64_t> error) { return error.value_or(0) != 0 ? "~" : ""; }

std::string EstimateText(uint64_t bytes, std::optional<uint64_t> error, uint64_t blocks) {
  const std::string_view mark = EstimateMark(error);
  const std::string range = mark.empty() ? "" : absl::StrCat(" ± ", FormatBytes(*error));
  return absl::StrCat(View(mark), FormatBytes(bytes), range, " in ", View(mark), Plural(blocks, "block"));
}

std::string FormatBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would print as 1024.0
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(uint64_t count) {
  std::string digits = absl::StrCat(count);
  for (size_t position = digits.size(); position > 3; position -= 3) digits.insert(position - 3, 1, ',');
  return digits;
}

std::string FormatSeconds(double seconds) {
  if (seconds < 10) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 120) return absl::StrFormat("%.1f s", seconds);
  const uint64_t whole = static_cast<uint64_t>(seconds);
  if (whole < 7200) return absl::StrFormat("%d m %d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %d m", whole / 3600, whole / 60 % 60);
}

std::string FormatRate(double count, std::string_view word) {
  if (count >= 9.95) return Plural(static_cast<uint64_t>(std::lround(count)), word);
  return absl::StrCat(absl::StrFormat("%.1f ", count), View(word), "s");
}

std::string FormatShare(uint64_t part, uint64_t whole) {
  if (whole == 0) return "";
  const double percent = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  if (percent < 1) return "<1 %";
  if (part < whole && percent > 99) return ">99 %";
  return absl::StrFormat("%.0f %%", percent);
}

std::string Plural(uint64_t count, std::string_view word) {
  return absl::StrCat(FormatCount(count), " ", View(word), count == 1 ? "" : "s");
}

std::string FitMiddle(std::string_view text, int columns) {
  if (DisplayWidth(text) <= columns) return std::string(text);
  if (columns <= 1) return columns == 1 ? std::string(kEllipsis) : "";
  const int front = (columns - 1) / 3;  // the end of a path says more
  return Cut(text, front, columns - 1 - front);
}

std::string FitEnd(std::string_view text, int columns) {
  if (DisplayWidth(text) <= columns) return std::string(text);
  if (columns <= 1) return columns == 1 ? std::string(kEllipsis) : "";
  return Cut(text, columns - 1, 0);
}

std::string PadRight(std::string_view text, int columns) {
  std::string fitted = FitMiddle(text, columns);
  fitted.append(static_cast<size_t>(std::max(0, columns - DisplayWidth(fitted))), ' ');
  return fitted;
}

std::string PadLeft(std::string_view text, int columns) {
  const std::string fitted = FitMiddle(text, columns);
  return absl::StrCat(std::string(static_cast<size_t>(std::max(0, columns - DisplayWidth(fitted))), ' '), fitted);
}

std::string Wrap(std::string_view text, int indent, int columns) {
  const int width = std::max(8, columns - indent);
  std::string out;
  int used = 0;
  for (absl::string_view part : absl::StrSplit(View(text), ' ', absl::SkipEmpty())) {
    const std::string fitted = FitMiddle(std::string_view(part.data(), part.size()), width);
    const int word_width = DisplayWidth(fitted);
    if (used != 0 && used + 1 + word_width > width) {
      absl::StrAppend(&out, "\n", std::string(static_cast<size_t>(indent), ' '));
      used = 0;
    }
    absl::StrAppend(&out, used == 0 ? "" : " ", fitted);
    used += word_width + (used == 0 ? 0 : 1);
  }
  return out;
}

std::string RelativePath(std::string_view path, std::string_view directory) {
  while (directory.size() > 1 && directory.ends_with('/')) directory.remove_suffix(1);
  if (directory.size() > 1 && path.starts_with(directory) && path.size() > directory.size() &&
      path[directory.size()] == '/') {
    path.remove_prefix(directory.size() + 1);
  }
  return std::string(path);
}

std::string Location(std::string_view file, uint32_t line, uint32_t column, std::string_view directory, int columns) {
  std::string numbers;
  if (line != 0 && column != 0 && absl::StartsWith(View(file), "wasm://")) {
    numbers = absl::StrFormat(":0x%x", column - 1);  // the offset in the module, as in V8's stack traces
  } else {
    if (line != 0) absl::StrAppend(&numbers, ":", line);
    if (line != 0 && column != 0) absl::StrAppend(&numbers, ":", column);
  }
  const std::string path = Printable(RelativePath(file, directory));
  return FitMiddle(path, std::max(1, columns - static_cast<int>(numbers.size()))) + numbers;
}

}  // namespace nodeleak::report
