// Cuts normalised text into the words that byte pairs are merged within: the "pre_tokenizer" of tokenizer.json.
// Known: ByteLevel, Split by a pattern, Digits, and sequences that end in ByteLevel.
// Threads: any.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "data/regex_split.h"

namespace tessera::data {

class PreTokenizer {
 public:
  // May throw json errors.
  static Result<PreTokenizer> parse(const nlohmann::json& description);
  static Result<PreTokenizer> gpt2();

  // Words lie inside `text` (which is what prefixed() returned), in order.
  using Sink = std::function<void(std::string_view word)>;
  void split(std::string_view text, const Sink& sink) const { split_from(0, text, sink); }

  // True when text that does not start with a space gets one in front.
  bool adds_prefix_space() const { return add_prefix_space_; }

 private:
  enum class Keep { both, gaps, matches };  // Isolated; Removed; Removed of the inverted pattern
  struct Step {
    SplitPattern pattern;
    Keep keep;
  };
  Status add(const nlohmann::json& description);
  Status add_split(const nlohmann::json& description);
  Status add_pattern(std::string_view pattern, Keep keep);
  void split_from(size_t step, std::string_view text, const Sink& sink) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
  bool add_prefix_space_ = false;
};

}  // namespace tessera::data
