#include "data/pre_tokenizer.h"

#include <nlohmann/json.hpp>

#include "data/byte_level.h"

namespace tessera::data {
namespace {

// A pattern that matches `text` literally.
std::string literal_pattern(std::string_view text) {
  std::string pattern;
  for (char c : text) {
    bool plain =
        static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c)) || c == ' ';
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::parse(const nlohmann::json& description) {
  PreTokenizer cutter;
  if (!description.is_null()) TESSERA_RETURN_IF_ERROR(cutter.add(description));
  if (!cutter.byte_level_)
    return invalid("the pre_tokenizer has no ByteLevel step: only byte-level vocabularies are supported");
  return cutter;
}

Result<PreTokenizer> PreTokenizer::gpt2() {
  PreTokenizer cutter;
  cutter.byte_level_ = true;
  TESSERA_RETURN_IF_ERROR(cutter.add_pattern(kGpt2Pattern, Keep::both));
  return cutter;
}

Status PreTokenizer::add(const nlohmann::json& description) {
  auto type = description.at("type").get<std::string>();
  if (byte_level_) return invalid("pre_tokenizer '{}' after ByteLevel is not supported", type);
  if (type == "Sequence") {
    for (const auto& part : description.at("pretokenizers")) TESSERA_RETURN_IF_ERROR(add(part));
    return {};
  }
  if (type == "Split") return add_split(description);
  if (type == "Digits")
    return add_pattern(description.value("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)", Keep::both);
  if (type == "ByteLevel") {
    byte_level_ = true;
    add_prefix_space_ = description.value("add_prefix_space", false);
    // The space would belong to every piece of the steps before: no known model asks for that.
    if (add_prefix_space_ && !steps_.empty())
      return invalid("ByteLevel with add_prefix_space after other pre_tokenizers is not supported");
    return description.value("use_regex", true) ? add_pattern(kGpt2Pattern, Keep::both) : Status();
  }
  return invalid("pre_tokenizer '{}' is not supported (known: ByteLevel, Split, Digits, Sequence)", type);
}

Status PreTokenizer::add_split(const nlohmann::json& description) {
  const auto& pattern = description.at("pattern");
  auto text = pattern.contains("Regex") ? pattern.at("Regex").get<std::string>()
                                        : literal_pattern(pattern.at("String").get<std::string>());
  auto behavior = description.at("behavior").get<std::string>();
  bool inverted = description.value("invert", false);
  if (behavior == "Isolated") return add_pattern(text, Keep::both);
  if (behavior == "Removed") return add_pattern(text, inverted ? Keep::matches : Keep::gaps);
  return invalid("Split with behavior '{}' is not supported (known: Isolated, Removed)", behavior);
}

Status PreTokenizer::add_pattern(std::string_view pattern, Keep keep) {
  TESSERA_ASSIGN_OR_RETURN(auto compiled, SplitPattern::compile(pattern));
  steps_.push_back({std::move(compiled), keep});
  return {};
}

void PreTokenizer::split_from(size_t step, std::string_view text, const Sink& sink) const {
  if (step == steps_.size()) return sink(text);
  Keep keep = steps_[step].keep;
  steps_[step].pattern.split(text, [&](std::string_view piece, bool is_match) {
    if (keep == (is_match ? Keep::gaps : Keep::matches)) return;
    split_from(step + 1, piece, sink);
  });
}

}  // namespace tessera::data
