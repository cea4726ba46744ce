#include "cli/options.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "cli/quantities.h"
#include "recording/layout.h"

namespace nodeleak::cli {
namespace {

enum CommandSet : unsigned {
  kForRun = 1,
  kForReport = 2,
  kForSnapshot = 4,
  kForRss = 8,
  kForAttach = 16,
  kForDetach = 32,
  kForGc = 64
};

struct CommandRow {
  const char* name;
  Command command;
  unsigned set;
  const char* usage;
  const char* help;
};

constexpr CommandRow kCommands[] = {
    {"run", Command::kRun, kForRun, "[run] [options] [--] COMMAND [ARG...]",
     "run a command, report when it has ended; exit status is the command's"},
    {"attach", Command::kAttach, kForAttach, "attach [options] PID",
     "record a process that runs, from now on; ends by --duration or Ctrl-C, then reports"},
    {"detach", Command::kDetach, kForDetach, "detach PID",
     "end what attach --keep left running, or what a killed nodeleak left behind"},
    {"report", Command::kReport, kForReport, "report [options] PID|RECORDING...",
     "report from a recording: finished, still being written, or left by a killed process"},
    {"gc", Command::kGc, kForGc, "gc [options] PID|RECORDING",
     "full garbage collections of a recorded process that runs, main thread and workers: what went, what is left"},
    {"rss", Command::kRss, kForRss, "rss [--format=json] PID|RECORDING",
     "where the resident memory is: of a running process now, also of one that nobody records"},
    {"snapshot", Command::kSnapshot, kForSnapshot, "snapshot [--gc=off] PID|RECORDING -o FILE",
     "a consistent copy of a recording that is being written, after a full garbage collection"},
    {"diff", Command::kNotYet, 0, nullptr, nullptr},
    {"top", Command::kNotYet, 0, nullptr, nullptr},
    {"doctor", Command::kNotYet, 0, nullptr, nullptr},
};

absl::Status OneOf(absl::string_view value, absl::Span<const char* const> words) {
  for (const char* word : words)
    if (value == word) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", value, "' is none of ", absl::StrJoin(words, ", ")));
}

absl::Status SetSize(absl::string_view value, uint64_t* out) {
  absl::StatusOr<uint64_t> bytes = ParseSize(value);
  if (bytes.ok()) *out = *bytes;
  return bytes.status();
}

absl::Status SetOutput(absl::string_view value, Settings* settings) {
  if (value.empty()) return absl::InvalidArgumentError("the path is empty");
  settings->output = std::string(value);
  return absl::OkStatus();
}

absl::Status SetReport(absl::string_view value, Settings* settings) {
  absl::StatusOr<std::string> format = FormatOfReport(value, "text");
  if (format.ok()) settings->reports.emplace_back(value);
  return format.status();
}

absl::Status SetFormat(absl::string_view value, Settings* settings) {
  settings->format = std::string(value);
  return OneOf(value, {"text", "json", "folded"});
}

absl::Status SetGroupBy(absl::string_view value, Settings* settings) {
  settings->group_by = std::string(value);
  return OneOf(value, {"site", "stack", "function", "package", "kind", "thread"});
}

absl::Status SetTop(absl::string_view value, Settings* settings) {
  uint32_t count;
  if (!absl::SimpleAtoi(value, &count))
    return absl::InvalidArgumentError(absl::StrCat("'", value, "' is not a number of groups (0 is all)"));
  settings->top = count;
  return absl::OkStatus();
}

absl::Status SetMinBytes(absl::string_view value, Settings* settings) { return SetSize(value, &settings->min_bytes); }
absl::Status SetSample(absl::string_view value, Settings* settings) {
  if (value != "auto") return SetSize(value, &settings->sample_bytes);
  settings->sample_bytes = recording::kSampleAutomatically;
  return absl::OkStatus();
}

absl::Status SetChildren(absl::string_view value, Settings* settings) {
  settings->children = std::string(value);
  return OneOf(value, {"node", "all", "none"});
}

absl::Status SetGc(absl::string_view value, Settings* settings) {
  settings->gc_at_end = value == "end";
  return OneOf(value, {"end", "off"});
}

absl::Status SetFailOn(absl::string_view value, Settings* settings) {
  FailOn fail_on;
  if (!absl::ConsumePrefix(&value, "growing"))
    return absl::InvalidArgumentError(absl::StrCat("'", value, "' is not growing or growing:SIZE"));
  if (absl::ConsumePrefix(&value, ":")) {
    if (absl::Status status = SetSize(value, &fail_on.min_bytes); !status.ok()) return status;
  } else if (!value.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'growing", value, "' is not growing or growing:SIZE"));
  }
  settings->fail_on = fail_on;
  return absl::OkStatus();
}

absl::Status SetMaxRecording(absl::string_view value, Settings* settings) {
  if (absl::Status status = SetSize(value, &settings->max_recording_bytes); !status.ok()) return status;
  if (settings->max_recording_bytes >= recording::kLeastRecordingBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", value, "' is too small; a recording needs at least 1MiB"));
}

absl::Status SetOnRss(absl::string_view value, Settings* settings) {
  if (absl::Status status = SetSize(value, &settings->on_rss_bytes); !status.ok()) return status;
  if (settings->on_rss_bytes != 0) return absl::OkStatus();
  return absl::InvalidArgumentError("0 bytes are in use from the start");
}

absl::Status SetQuiet(absl::string_view, Settings* settings) {
  settings->quiet = true;
  return absl::OkStatus();
}

absl::Status SetDuration(absl::string_view value, Settings* settings) {
  absl::StatusOr<uint64_t> milliseconds = ParseDuration(value);
  if (milliseconds.ok()) settings->duration_ms = *milliseconds;
  return milliseconds.status();
}

absl::Status SetKeep(absl::string_view, Settings* settings) {
  settings->keep = true;
  return absl::OkStatus();
}

absl::Status SetTrustSeccomp(absl::string_view, Settings* settings) {
  settings->trust_seccomp = true;
  return absl::OkStatus();
}

struct OptionRow {
  const char* name;
  char letter;           // 0: none
  const char* argument;  // nullptr: takes none
  unsigned commands;     // CommandSet
  absl::Status (*set)(absl::string_view value, Settings* settings);
  const char* help;
};

constexpr OptionRow kOptions[] = {
    {"output", 'o', "PATH", kForRun | kForAttach | kForSnapshot, SetOutput,
     "the recording; %p is the pid, %n the program (nodeleak.%n.%p.rec in this directory)"},
    {"report", 0, "FILE", kForRun | kForAttach | kForReport, SetReport,
     "also write a report; .txt, .json or .folded by its name, - is stdout; repeatable; expands %p and %n"},
    {"format", 0, "text|json|folded", kForRun | kForAttach | kForReport | kForRss | kForGc, SetFormat,
     "what is printed; all but text goes to stdout (text)"},
    {"group-by", 0, "WHAT", kForRun | kForAttach | kForReport, SetGroupBy,
     "site, stack, function, package, kind or thread (site: kind, JavaScript line and native function)"},
    {"top", 0, "N", kForRun | kForAttach | kForReport | kForGc, SetTop,
     "show so many groups, 0 is all (20; files get all)"},
    {"min-bytes", 0, "SIZE", kForRun | kForAttach | kForReport, SetMinBytes,
     "leave out groups with less outstanding (0)"},
    {"sample", 0, "SIZE|auto", kForRun | kForAttach, SetSample,
     "record one allocation in so many bytes and all of at least that size; the report estimates; auto keeps itself "
     "under 2 % of the processor time; 0 is every allocation (0)"},
    {"children", 0, "node|all|none", kForRun, SetChildren, "which child processes are recorded too (node)"},
    {"gc", 0, "end|off", kForRun | kForAttach | kForDetach | kForSnapshot, SetGc,
     "full garbage collection before the picture at the end, and before a copy (end)"},
    {"fail-on", 0, "growing[:SIZE]", kForRun | kForAttach | kForReport, SetFailOn,
     "exit status 1 when groups that grow have at least SIZE outstanding and the command itself succeeded"},
    {"max-recording", 0, "SIZE", kForRun | kForAttach, SetMaxRecording, "limit of a recording file (1GiB)"},
    {"on-rss", 0, "SIZE", kForRun, SetOnRss,
     "when the RSS crosses SIZE, also write a report then: nodeleak.%n.%p.rss.txt, or the names of --report with .rss "
     "before the extension"},
    {"quiet", 'q', nullptr, kForRun | kForAttach | kForReport, SetQuiet,
     "print nothing but errors; without --report the recording is left for later"},
    {"duration", 0, "TIME", kForAttach, SetDuration, "how long attach records (until Ctrl-C)"},
    {"keep", 0, nullptr, kForAttach, SetKeep, "attach leaves the recorder running; nodeleak detach ends it"},
    {"trust-seccomp", 0, nullptr, kForAttach, SetTrustSeccomp,
     "attach also under a seccomp filter that cannot be read; it must not end the process for a system call"},
};

// Known of the design, comes later: told apart from a typing mistake.
constexpr const char* kOptionsNotYet[] = {"suppressions"};

// The number of characters to insert, remove or replace (Levenshtein).
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

// "; did you mean --children?", when one is near enough to be a typing mistake.
std::string Suggestion(absl::string_view name) {
  const OptionRow* nearest = std::min_element(
      std::begin(kOptions), std::end(kOptions),
      [&](const OptionRow& a, const OptionRow& b) { return EditDistance(name, a.name) < EditDistance(name, b.name); });
  const size_t most = std::max<size_t>(1, name.size() / 3);
  if (name.empty() || EditDistance(name, nearest->name) > most) return "";
  return absl::StrCat("; did you mean --", nearest->name, "?");
}

const OptionRow* FindOption(absl::string_view name, char letter) {
  for (const OptionRow& row : kOptions)
    if ((!name.empty() && name == row.name) || (letter != 0 && letter == row.letter)) return &row;
  return nullptr;
}

const CommandRow* FindCommand(absl::string_view name) {
  for (const CommandRow& row : kCommands)
    if (name == row.name) return &row;
  return nullptr;
}

// One option word, taken apart: "--name=value", "--name", "-o".
struct OptionWord {
  absl::string_view name;
  char letter = 0;
  std::optional<absl::string_view> value;
};

OptionWord SplitOption(absl::string_view word) {
  OptionWord option;
  if (!absl::ConsumePrefix(&word, "--")) {
    option.letter = word[1];
    if (word.size() > 2) option.value = absl::StripPrefix(word.substr(2), "=");
    return option;
  }
  size_t equals = word.find('=');
  option.name = word.substr(0, equals);
  if (equals != absl::string_view::npos) option.value = word.substr(equals + 1);
  return option;
}

absl::Status UnknownOption(absl::string_view word, const OptionWord& option) {
  for (const char* later : kOptionsNotYet)
    if (option.name == later)
      return absl::UnimplementedError(absl::StrCat("option --", later, " is not in this version yet"));
  return absl::InvalidArgumentError(absl::StrCat("unknown option ", word.substr(0, word.find('=')),
                                                 Suggestion(option.name), " (nodeleak --help lists all)"));
}

class Parser {
 public:
  explicit Parser(absl::Span<const std::string> arguments) : rest_(arguments) {}

  absl::StatusOr<Invocation> Parse() {
    TakeCommand();
    if (row_->command == Command::kNotYet) {
      invocation_.command = Command::kNotYet;
      return invocation_;
    }
    while (!rest_.empty()) {
      const std::string word = rest_.front();
      if (word == "--") {
        rest_.remove_prefix(1);
        TakeOperands();
      } else if (word.size() < 2 || word[0] != '-') {
        if (row_->command == Command::kRun) {
          TakeOperands();  // the options behind belong to the command
        } else {
          TakeOperand();
        }
      } else if (TakeHelpOrVersion(word)) {
        return invocation_;
      } else if (absl::Status status = TakeOption(word); !status.ok()) {
        return status;
      }
    }
    return Checked();
  }

 private:
  void TakeCommand() {
    row_ = rest_.empty() ? nullptr : FindCommand(rest_.front());
    if (row_ == nullptr) {
      row_ = &kCommands[0];
    } else {
      rest_.remove_prefix(1);
    }
    invocation_.command = row_->command;
    invocation_.command_name = row_->name;
  }

  void TakeOperand() {
    invocation_.operands.push_back(rest_.front());
    rest_.remove_prefix(1);
  }
  void TakeOperands() {
    while (!rest_.empty()) TakeOperand();
  }

  bool TakeHelpOrVersion(absl::string_view word) {
    if (word == "--help" || word == "-h") {
      invocation_.command = Command::kHelp;
    } else if (word == "--version") {
      invocation_.command = Command::kVersion;
    } else {
      return false;
    }
    return true;
  }

  absl::Status TakeOption(const std::string& word) {
    rest_.remove_prefix(1);
    OptionWord option = SplitOption(word);
    const OptionRow* row = FindOption(option.name, option.letter);
    if (row == nullptr) return UnknownOption(word, option);
    std::string shown = absl::StrCat("--", row->name);
    if ((row->commands & row_->set) == 0)
      return absl::InvalidArgumentError(absl::StrCat("option ", shown, " is not one of nodeleak ", row_->name));
    if (row->argument == nullptr && option.value.has_value())
      return absl::InvalidArgumentError(absl::StrCat("option ", shown, " takes no value"));
    if (row->argument != nullptr && !option.value.has_value()) {
      if (rest_.empty())
        return absl::InvalidArgumentError(
            absl::StrCat("option ", shown, " needs a value: ", shown, "=", row->argument));
      option.value = rest_.front();
      rest_.remove_prefix(1);
    }
    absl::Status status = row->set(option.value.value_or(""), &invocation_.settings);
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat("option ", shown, ": ", status.message()));
  }

  absl::StatusOr<Invocation> Checked() {
    if (!invocation_.operands.empty()) return std::move(invocation_);
    switch (invocation_.command) {
      case Command::kRun:
        return absl::InvalidArgumentError("there is no command to run; for example: nodeleak node server.js");
      case Command::kAttach:
      case Command::kDetach:
        return absl::InvalidArgumentError(
            absl::StrCat("nodeleak ", row_->name, " needs a process id: nodeleak ", row_->usage));
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("nodeleak ", row_->name, " needs a recording: nodeleak ", row_->usage));
    }
  }

  absl::Span<const std::string> rest_;
  const CommandRow* row_ = nullptr;
  Invocation invocation_;
};

// "  --name=ARGUMENT" and its help, wrapped at `kColumns`.
constexpr size_t kColumns = 100;
constexpr size_t kHelpIndent = 29;

void AppendRow(absl::string_view left, absl::string_view help, std::string* text) {
  std::string line = absl::StrCat("  ", left);
  if (line.size() + 2 > kHelpIndent) {
    absl::StrAppend(text, line, "\n");
    line.clear();
  }
  line.resize(kHelpIndent, ' ');
  while (line.size() + help.size() > kColumns) {
    size_t cut = help.rfind(' ', kColumns - line.size());
    if (cut == absl::string_view::npos) break;
    absl::StrAppend(text, line, help.substr(0, cut), "\n");
    help.remove_prefix(cut + 1);
    line.assign(kHelpIndent, ' ');
  }
  absl::StrAppend(text, line, help, "\n");
}

}  // namespace

absl::StatusOr<Invocation> ParseCommandLine(absl::Span<const std::string> arguments) {
  return Parser(arguments).Parse();
}

absl::StatusOr<std::string> FormatOfReport(absl::string_view path, absl::string_view fallback) {
  struct ExtensionRow {
    const char* extension;
    const char* format;  // nullptr: not in this version yet
  };
  constexpr ExtensionRow kExtensions[] = {{".txt", "text"},   {".json", "json"},   {".folded", "folded"},
                                          {".html", nullptr}, {".pb.gz", nullptr}, {".heapprofile", nullptr}};
  if (path == "-") return std::string(fallback);
  for (const ExtensionRow& row : kExtensions) {
    if (!absl::EndsWith(path, row.extension)) continue;
    if (row.format != nullptr) return std::string(row.format);
    return absl::UnimplementedError(absl::StrCat("cannot write ", path, ": ", row.extension,
                                                 " reports are not in this version yet; use .txt, .json or .folded"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cannot tell the format of '", path, "' from its name; use .txt, .json or .folded"));
}

std::string HelpText() {
  std::string text =
      "nodeleak finds the memory outside the JavaScript heap that a Node.js program keeps: Buffers, native\n"
      "addons, zlib, OpenSSL..., by the JavaScript line and the native function that asked for it.\n"
      "\n"
      "Try it:\n"
      "  nodeleak node server.js                      use it a while, Ctrl-C: the report is printed\n"
      "  nodeleak --report=leaks.json -- npm test     a report per node process, for machines\n"
      "  nodeleak attach --duration=60s 4242          watch a process that runs\n"
      "  nodeleak report nodeleak.node.4242.rec       read a recording again, also of a process that runs\n"
      "\n"
      "Commands:\n";
  for (const CommandRow& row : kCommands) {
    if (row.usage != nullptr) AppendRow(absl::StrCat("nodeleak ", row.usage), row.help, &text);
  }
  absl::StrAppend(&text, "  nodeleak --help | --version\n\nOptions (defaults in parentheses):\n");
  for (const OptionRow& row : kOptions) {
    std::string left = row.letter != 0 ? absl::StrCat("-", std::string(1, row.letter), ", ") : "";
    absl::StrAppend(&left, "--", row.name);
    if (row.argument != nullptr) absl::StrAppend(&left, "=", row.argument);
    AppendRow(left, row.help, &text);
  }
  absl::StrAppend(&text,
                  "\n"
                  "Sizes are 4096, 64KiB, 1.5MB... The text report goes to stderr: stdout is the command's own.\n"
                  "With several recorded processes and no %p in a name, the pid goes in before the extension for all\n"
                  "but the command itself. Exit status: the command's (ended by a signal: the same signal), 1 by\n"
                  "--fail-on, 2 when nodeleak itself could not do what was asked. NO_COLOR turns colour off.\n");
  return text;
}

}  // namespace nodeleak::cli
