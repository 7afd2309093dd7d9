// GGUF's tokenizer as the file that the same model has elsewhere: "gpt2" as tokenizer.json, "llama" as
// llama2.c's.
#include <cstring>

#include "serve/gguf_model.h"

namespace tessera::serve {
namespace {

using checkpoint::GgufFile;
using nlohmann::json;

enum TokenType : int64_t { kControl = 3, kUserDefined = 4 };

const json& field(const GgufFile& file, const char* name) {
  static const json none;
  auto found = file.metadata().find(std::string("tokenizer.ggml.") + name);
  return found == file.metadata().end() ? none : *found;
}

// How the model's authors cut texts into words, as regular expressions.
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json split_by(const char* regex) {
  json split = {
      {"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
  json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", json::array({split, bytes})}};
}

Result<json> pre_tokenizer_of(const std::string& name) {
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return split_by(kLlama3);
  if (name == "qwen2" || name == "qwen3") return split_by(kQwen2);
  if (name.empty() || name == "default" || name == "gpt-2" || name == "gpt2")
    return json{
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return invalid("tokenizer.ggml.pre '{}' is not known (known: gpt-2, llama-bpe, qwen2); give --tokenizer DIR",
                 name);
}

std::string text_or(const json& value, const char* otherwise) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

bool wants_begin(const GgufFile& file, bool otherwise) {
  const json& value = field(file, "add_bos_token");
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

Result<json> tokenizer_json(const GgufFile& file) {
  const json &tokens = field(file, "tokens"), &types = field(file, "token_type"),
             &merges = field(file, "merges");
  if (!merges.is_array()) return invalid("tokenizer.ggml.merges are missing; give --tokenizer DIR");
  const std::string pre = text_or(field(file, "pre"), "");
  TESSERA_ASSIGN_OR_RETURN(json pre_tokenizer, pre_tokenizer_of(pre));
  json vocabulary = json::object(), added = json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    const int64_t type = types.is_array() && id < types.size() ? types[id].get<int64_t>() : 1;
    vocabulary[tokens[id].get<std::string>()] = id;
    if (type == kControl || type == kUserDefined)
      added.push_back(
          {{"id", id}, {"content", tokens[id]}, {"special", type == kControl}, {"normalized", false}});
  }
  json root = {{"added_tokens", added},
               {"pre_tokenizer", pre_tokenizer},
               {"decoder", {{"type", "ByteLevel"}}},
               {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
  if (pre.starts_with("llama")) root["model"]["ignore_merges"] = true;
  const json& begin = field(file, "bos_token_id");
  if (begin.is_number_integer() && wants_begin(file, false))
    root["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "bos"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens", {{"bos", {{"id", "bos"}, {"ids", {begin}}, {"tokens", {"bos"}}}}}}};
  return root;
}

// SentencePiece writes a space as U+2581.
std::string with_spaces(std::string_view text) {
  constexpr std::string_view kSpace = "\xe2\x96\x81";
  std::string result;
  while (!text.empty()) {
    const bool space = text.starts_with(kSpace);
    result += space ? ' ' : text.front();
    text.remove_prefix(space ? kSpace.size() : 1);
  }
  return result;
}

void append(std::string& to, const void* data, size_t size) {
  to.append(static_cast<const char*>(data), size);
}

// The file of llama2.c. Its reader knows what begins, ends and stands for bytes by the ids that Llama 2 has.
Result<std::string> llama2c_file(const GgufFile& file) {
  const json &tokens = field(file, "tokens"), &scores = field(file, "scores");
  const bool as_llama = scores.is_array() && scores.size() == tokens.size() && tokens.size() > 259 &&
                        tokens[3] == "<0x00>" && tokens[258] == "<0xFF>" && field(file, "bos_token_id") == 1;
  if (!as_llama)
    return invalid("the tokenizer is SentencePiece's, but not laid out as Llama's; give --tokenizer DIR");
  int32_t longest = 1;
  std::string body;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string piece = with_spaces(tokens[id].get<std::string>());
    const auto score = scores[id].get<float>();
    const auto length = static_cast<int32_t>(piece.size());
    longest = std::max(longest, length);
    append(body, &score, sizeof score);
    append(body, &length, sizeof length);
    body += piece;
  }
  std::string content;
  append(content, &longest, sizeof longest);
  return content + body;
}

Result<std::shared_ptr<data::Tokenizer>> parse(const GgufFile& file) {
  const std::string where = file.path().string(), kind = text_or(field(file, "model"), "none");
  if (!field(file, "tokens").is_array() || kind == "no_vocab" || kind == "none")
    return invalid("the file has no tokenizer; give --tokenizer DIR");
  if (kind == "gpt2") {
    TESSERA_ASSIGN_OR_RETURN(json root, tokenizer_json(file));
    return data::parse_tokenizer_json(root.dump(-1, ' ', false, json::error_handler_t::strict),
                                      "its tokenizer");
  }
  if (kind != "llama")
    return invalid("tokenizer.ggml.model '{}' is not known (known: gpt2, llama); give --tokenizer DIR", kind);
  TESSERA_ASSIGN_OR_RETURN(std::string content, llama2c_file(file));
  return data::parse_llama2c_tokenizer(content, "its tokenizer");
}

}  // namespace

Result<data::TokenizerPtr> tokenizer_of_gguf(const GgufFile& file) {
  try {
    auto tokenizer = parse(file);
    if (!tokenizer) return tokenizer.error().within(file.path().string());
    auto id_of = [&](const char* name) -> std::optional<int64_t> {
      const json& id = field(file, name);
      return id.is_number_integer() ? std::optional(id.get<int64_t>()) : std::nullopt;
    };
    (*tokenizer)->set_bos_id(id_of("bos_token_id"));
    (*tokenizer)->set_eos_id(id_of("eos_token_id"));
    return data::TokenizerPtr(*tokenizer);
  } catch (const json::exception& error) {
    return make_error(ErrorCode::data_loss, "{}: its tokenizer: {}", file.path().string(), error.what());
  }
}

Result<data::TokenizerPtr> load_served_tokenizer(const std::filesystem::path& model,
                                                 const std::filesystem::path& tokenizer) {
  if (!tokenizer.empty()) return data::load_tokenizer(tokenizer);
  if (!GgufFile::is_at(model)) return data::load_tokenizer(model);
  TESSERA_ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(model));
  return tokenizer_of_gguf(file);
}

}  // namespace tessera::serve
