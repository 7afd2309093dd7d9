// Reader of Hugging Face tokenizer.json: {"added_tokens", "normalizer", "pre_tokenizer", "post_processor",
// "model"}.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/byte_level.h"
#include "data/byte_level_tokenizer.h"

namespace tessera::data {
namespace {

using nlohmann::json;
using Parts = ByteLevelTokenizer::Parts;
using Vocabulary = std::unordered_map<std::string, int32_t>;

// Ids index a table: a wild one in a damaged file must not ask for all memory.
constexpr int64_t kMostIds = 16 << 20;

Result<int32_t> checked_id(const json& value, std::string_view token) {
  auto id = value.get<int64_t>();
  if (id < 0 || id >= kMostIds)
    return invalid("token '{}' has id {}, expected 0 to {}", token, id, kMostIds - 1);
  return static_cast<int32_t>(id);
}

Result<Vocabulary> read_vocabulary(const json& model, Parts& parts) {
  Vocabulary vocabulary;
  for (const auto& [text, value] : model.at("vocab").items()) {
    TESSERA_ASSIGN_OR_RETURN(int32_t id, checked_id(value, text));
    vocabulary.emplace(text, id);
    std::string bytes = bytes_of_visible(text).value_or(text);
    if (parts.ignore_merges) parts.words.emplace(bytes, id);
    parts.tokens.emplace_back(id, std::move(bytes));
  }
  if (vocabulary.empty()) return invalid("the vocabulary is empty");
  return vocabulary;
}

std::array<int32_t, 256> byte_ids(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids{};
  for (int byte = 0; byte < 256; ++byte) {
    char raw = static_cast<char>(byte);
    auto found = vocabulary.find(visible_of_bytes({&raw, 1}));
    ids[static_cast<size_t>(byte)] = found == vocabulary.end() ? -1 : found->second;
  }
  return ids;
}

// "a b" in older files, ["a", "b"] since tokenizers 0.20.
Result<std::pair<std::string, std::string>> merge_of(const json& entry) {
  if (entry.is_array() && entry.size() == 2)
    return std::pair{entry[0].get<std::string>(), entry[1].get<std::string>()};
  auto text = entry.get<std::string>();
  size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    return invalid("merge '{}' is no pair of two tokens", text);
  return std::pair{text.substr(0, space), text.substr(space + 1)};
}

Status read_merges(const json& model, const Vocabulary& vocabulary, BytePairs& pairs) {
  for (const auto& entry : model.at("merges")) {
    TESSERA_ASSIGN_OR_RETURN(auto pair, merge_of(entry));
    auto left = vocabulary.find(pair.first), right = vocabulary.find(pair.second);
    auto merged = vocabulary.find(pair.first + pair.second);
    for (auto found : {left, right, merged})
      if (found == vocabulary.end())
        return invalid("merge '{} {}' uses a token that is not in the vocabulary", pair.first, pair.second);
    pairs.add_merge(left->second, right->second, merged->second);
  }
  return {};
}

Result<std::vector<AddedToken>> read_added(const json& root) {
  std::vector<AddedToken> tokens;
  const json none = json::array();
  for (const auto& entry : root.contains("added_tokens") ? root.at("added_tokens") : none) {
    AddedToken token;
    token.content = entry.at("content").get<std::string>();
    TESSERA_ASSIGN_OR_RETURN(token.id, checked_id(entry.at("id"), token.content));
    token.special = entry.value("special", false);
    token.normalized = entry.value("normalized", !token.special);
    token.single_word = entry.value("single_word", false);
    token.lstrip = entry.value("lstrip", false);
    token.rstrip = entry.value("rstrip", false);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Ids that the template for one text puts before ($A not yet seen) and after it.
Status read_template(const json& processor, Parts& parts) {
  bool after = false;
  for (const auto& item : processor.at("single")) {
    if (item.contains("Sequence")) after = true;
    if (!item.contains("SpecialToken")) continue;
    auto name = item.at("SpecialToken").at("id").get<std::string>();
    for (const auto& value : processor.at("special_tokens").at(name).at("ids")) {
      TESSERA_ASSIGN_OR_RETURN(int32_t id, checked_id(value, name));
      (after ? parts.suffix : parts.prefix).push_back(id);
    }
  }
  return {};
}

Status read_post_processor(const json& processor, Parts& parts) {
  if (processor.is_null()) return {};
  auto type = processor.at("type").get<std::string>();
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return read_template(processor, parts);
  if (type == "Sequence") {
    for (const auto& part : processor.at("processors"))
      TESSERA_RETURN_IF_ERROR(read_post_processor(part, parts));
    return {};
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    TESSERA_ASSIGN_OR_RETURN(int32_t first, checked_id(processor.at("cls").at(1), "cls"));
    TESSERA_ASSIGN_OR_RETURN(int32_t last, checked_id(processor.at("sep").at(1), "sep"));
    parts.prefix.push_back(first);
    parts.suffix.push_back(last);
    return {};
  }
  return invalid(
      "post_processor '{}' is not supported (known: ByteLevel, TemplateProcessing, RobertaProcessing, "
      "Sequence)",
      type);
}

Status refuse_what_would_be_ignored(const json& model) {
  auto type = model.value("type", std::string("BPE"));
  if (type != "BPE") return invalid("model '{}' is not supported, only BPE", type);
  if (model.value("byte_fallback", false))
    return invalid("SentencePiece-style BPE (byte_fallback) is not supported in tokenizer.json");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.contains(key) && model[key].is_string() && !model[key].get<std::string>().empty())
      return invalid("{} is not supported", key);
  return {};
}

json member(const json& root, const char* key) {
  return root.contains(key) ? root.at(key) : json();
}

Result<Parts> read_parts(const json& root) {
  if (!root.is_object() || !root.contains("model"))
    return invalid("no \"model\" in it: not a tokenizer.json of Hugging Face");
  const json& model = root.at("model");
  TESSERA_RETURN_IF_ERROR(refuse_what_would_be_ignored(model));
  TESSERA_ASSIGN_OR_RETURN(auto normalizer, Normalizer::parse(member(root, "normalizer")));
  TESSERA_ASSIGN_OR_RETURN(auto pre_tokenizer, PreTokenizer::parse(member(root, "pre_tokenizer")));
  Parts parts{
      .normalizer = std::move(normalizer), .pre_tokenizer = std::move(pre_tokenizer), .pairs = BytePairs({})};
  parts.ignore_merges = model.value("ignore_merges", false);
  TESSERA_ASSIGN_OR_RETURN(auto vocabulary, read_vocabulary(model, parts));
  parts.pairs = BytePairs(byte_ids(vocabulary));
  TESSERA_RETURN_IF_ERROR(read_merges(model, vocabulary, parts.pairs));
  TESSERA_ASSIGN_OR_RETURN(parts.added, read_added(root));
  TESSERA_RETURN_IF_ERROR(read_post_processor(member(root, "post_processor"), parts));
  return parts;
}

}  // namespace

Result<std::shared_ptr<Tokenizer>> parse_tokenizer_json(std::string_view content, std::string_view where) {
  try {
    auto parts = read_parts(json::parse(content));
    if (!parts) return parts.error().within(where);
    return std::shared_ptr<Tokenizer>(std::make_shared<ByteLevelTokenizer>(std::move(parts).value()));
  } catch (const json::exception& error) {
    return invalid("{}: {}", where, error.what());
  }
}

}  // namespace tessera::data
