// Outside. Turns the string table's spans into texts that are safe to print.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "recording/recording.h"

namespace nodeleak::recording {

// Copies `bytes` as UTF-8: what is not, control characters (terminals obey them) and bidirectional overrides become
// U+FFFD. Line breaks and tabs stay when `keep_lines`.
std::string CleanText(absl::string_view bytes, bool keep_lines);

class TextReader {
 public:
  // `bytes` is kStringBytes; texts go into recording->texts. Both must outlive the reader.
  TextReader(const std::vector<char>& bytes, Recording* recording);

  // The same span is one text. Out of the table: empty, and counted.
  absl::string_view Read(StringRef ref);
  // Each ended by a NUL byte.
  std::vector<absl::string_view> ReadList(StringRef ref);
  absl::string_view Keep(std::string text);

  uint64_t unreadable() const { return unreadable_; }

 private:
  // False: not in the table, or spans that overlap claim far more text than there is.
  bool Find(StringRef ref, absl::string_view* bytes);

  const absl::string_view bytes_;
  Recording* const recording_;
  absl::flat_hash_map<uint64_t, absl::string_view> known_;
  uint64_t budget_;
  uint64_t unreadable_ = 0;
};

}  // namespace nodeleak::recording
