#include "data/regex_split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/utf8.h"

namespace tessera::data {
namespace {

constexpr size_t kJitStackStart = 32 << 10, kJitStackMost = 1 << 20;

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};

// What a match needs besides the pattern; one for each thread, shared by all patterns.
struct Workspace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr);
  Workspace() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~Workspace() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

// \s and \S of the pattern, spelt out as White_Space.
std::string with_unicode_spaces(std::string_view pattern) {
  constexpr std::string_view kSpaces =
      R"(\x09-\x0D\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      char next = pattern[++i];
      if (next == 's') {
        out += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      } else if (next == 'S' && !in_class) {
        out += fmt::format("[^{}]", kSpaces);
      } else {
        out += {c, next};
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

struct SplitPattern::Code {
  std::unique_ptr<pcre2_code, FreeCode> compiled;
};

Result<SplitPattern> SplitPattern::compile(std::string_view pattern) {
  // PCRE2 reads && as two characters, Oniguruma as an intersection of classes: refuse rather than mistake.
  if (pattern.find("&&") != std::string_view::npos)
    return invalid("pattern '{}' has a class intersection (&&), which is not supported", pattern);
  std::string spelt = with_unicode_spaces(pattern);
  int number = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelt.data()), spelt.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(number, text, sizeof text);
    return invalid("pattern '{}' does not compile: {}", pattern, reinterpret_cast<const char*>(text));
  }
  // Without JIT (some systems forbid writable code) matching is slower and otherwise the same.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  auto owner = std::make_shared<Code>();
  owner->compiled.reset(code);
  return SplitPattern(std::move(owner));
}

void SplitPattern::split(std::string_view text, const Sink& sink) const {
  while (!text.empty()) {
    size_t valid = utf8_valid_prefix(text);
    split_valid(text.substr(0, valid), sink);
    text.remove_prefix(valid);
    size_t bad = 0;
    while (bad < text.size() && utf8_length(text.substr(bad)) == 0) ++bad;
    if (bad > 0) sink(text.substr(0, bad), false);
    text.remove_prefix(bad);
  }
}

void SplitPattern::split_valid(std::string_view text, const Sink& sink) const {
  thread_local Workspace workspace;
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t done = 0, from = 0;
  while (from < text.size()) {
    int found = pcre2_match(code_->compiled.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                            workspace.data, workspace.context);
    // A limit reached (a hostile text) counts as no further match: the rest is one gap, nothing is lost.
    if (found < 0) break;
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(workspace.data);
    if (ends[0] < from || ends[1] < ends[0]) break;  // \K inside a lookahead can do that
    if (ends[1] == ends[0]) {
      from = ends[1] + std::max<size_t>(1, utf8_length(text.substr(ends[1])));
      continue;
    }
    if (ends[0] > done) sink(text.substr(done, ends[0] - done), false);
    sink(text.substr(ends[0], ends[1] - ends[0]), true);
    done = from = ends[1];
  }
  if (done < text.size()) sink(text.substr(done), false);
}

}  // namespace tessera::data
