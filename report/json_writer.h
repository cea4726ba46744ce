// Outside node. Writes JSON as it goes: no tree, two-space indent, always valid UTF-8, integers as integers.
//
//   JsonWriter json;
//   json.BeginObject();
//   json.Field("pid", uint64_t{4242});
//   json.Key("groups"); json.BeginArray(); ... json.EndArray();
//   json.EndObject();
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nodeleak::report {

class JsonWriter {
 public:
  void BeginObject() { Open('{'); }
  void EndObject() { Close('}'); }
  void BeginArray() { Open('['); }
  void EndArray() { Close(']'); }
  // What follows until its end stays on one line: for the many small objects.
  void BeginCompactObject();

  void Key(std::string_view key);
  void String(std::string_view value);
  void Integer(uint64_t value);
  void Signed(int64_t value);
  void Seconds(double value);  // three decimals
  void Bool(bool value);
  void Null();

  void Field(std::string_view key, std::string_view value) { Key(key), String(value); }
  void Field(std::string_view key, const char* value) { Key(key), String(value); }
  void Field(std::string_view key, uint64_t value) { Key(key), Integer(value); }
  void SecondsField(std::string_view key, double value) { Key(key), Seconds(value); }
  void BoolField(std::string_view key, bool value) { Key(key), Bool(value); }

  std::string Take() { return std::move(out_); }

 private:
  void BeforeValue();
  void NewLine();
  void Open(char bracket);
  void Close(char bracket);
  bool compact() const { return compact_depth_ != 0; }

  std::string out_;
  std::vector<bool> has_element_;  // one per open bracket
  size_t compact_depth_ = 0;       // depth at which compact writing began, plus one
  bool after_key_ = false;
};

// The text between the quotes.
std::string JsonEscape(std::string_view value);

}  // namespace nodeleak::report
