// The step of a Hugging Face tokenizer that rewrites text before it is cut: Unicode normal forms (utf8proc),
// Replace of a plain string, Prepend, and sequences of them.
// Threads: any.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera::data {

class Normalizer {
 public:
  // `description` is the value of "normalizer" in tokenizer.json; null stands for none. May throw json errors.
  static Result<Normalizer> parse(const nlohmann::json& description);

  bool empty() const { return steps_.empty(); }
  // Bytes that are no UTF-8 pass through as they are.
  std::string apply(std::string_view text) const;

 private:
  enum class Kind { nfc, nfd, nfkc, nfkd, replace, prepend };
  struct Step {
    Kind kind;
    std::string from, to;
  };
  Status add(const nlohmann::json& description);
  static std::string apply(const Step& step, std::string_view text);
  std::vector<Step> steps_;
};

}  // namespace tessera::data
