// Pre-tokenisation patterns of Hugging Face tokenizers (GPT-2, Llama-3, Qwen, ...) on PCRE2 with Unicode
// properties and JIT. Oniguruma, which Hugging Face uses, and PCRE2 agree on these patterns except for \s:
// PCRE2 counts U+180E as a space. The pattern is rewritten so that \s means Unicode's White_Space. Threads: a
// SplitPattern may be used from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera::data {

class SplitPattern {
 public:
  static Result<SplitPattern> compile(std::string_view pattern);

  // Cuts `text` into matches and the gaps between them, in order, none empty. `text` may be any bytes: runs
  // that are no UTF-8 match nothing and come out as gaps.
  using Sink = std::function<void(std::string_view piece, bool is_match)>;
  void split(std::string_view text, const Sink& sink) const;

 private:
  struct Code;
  explicit SplitPattern(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  void split_valid(std::string_view text, const Sink& sink) const;
  std::shared_ptr<const Code> code_;
};

}  // namespace tessera::data
