#include <array>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "data/residue_tokenizer.h"
#include "data/tokenizer.h"

namespace tessera::data {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

Result<fs::path> find_file(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tok512.bin", "tokenizer.bin", "vocab.txt"})
    if (fs::path file = folder / name; fs::is_regular_file(file)) return file;
  return make_error(
      ErrorCode::not_found,
      "{}: no tokenizer there; expected tokenizer.json (Hugging Face), tok512.bin or tokenizer.bin "
      "(llama2.c), or vocab.txt (ESM-2)",
      folder.string());
}

// The JSON object in a file beside the tokenizer; empty when there is none. These files only give hints, so a
// damaged one counts as none.
json hints(const fs::path& file) {
  auto content = read_file(file);
  if (!content) return json::object();
  json root = json::parse(*content, nullptr, /*allow_exceptions=*/false);
  return root.is_object() ? root : json::object();
}

// "eos_token": "</s>" or {"content": "</s>", ...}.
std::optional<int64_t> by_name(const Tokenizer& tokenizer, const json& config, const char* key) {
  if (!config.contains(key)) return std::nullopt;
  const json& value = config.at(key);
  const json& name = value.is_object() && value.contains("content") ? value.at("content") : value;
  return name.is_string() ? tokenizer.token_to_id(name.get<std::string>()) : std::nullopt;
}

// "eos_token_id": 2 or [128001, 128008]: the first.
std::optional<int64_t> by_id(const json& config, const char* key) {
  if (!config.contains(key)) return std::nullopt;
  const json& value = config.at(key);
  const json& id = value.is_array() && !value.empty() ? value.at(0) : value;
  if (!id.is_number_integer()) return std::nullopt;
  return id.get<int64_t>();
}

template <size_t N>
std::optional<int64_t> by_usual_name(const Tokenizer& tokenizer, const std::array<const char*, N>& names) {
  for (const char* name : names)
    if (auto id = tokenizer.token_to_id(name); id && tokenizer.is_special(*id)) return id;
  return std::nullopt;
}

constexpr std::array kBosNames = {"<|begin_of_text|>", "<s>", "<|startoftext|>", "<bos>"};
constexpr std::array kEosNames = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>", "<eos>"};

// Weakest source first: each later one that knows the token replaces it.
void find_begin_and_end(Tokenizer& tokenizer, const fs::path& folder) {
  json config = hints(folder / "config.json"), own = hints(folder / "tokenizer_config.json");
  tokenizer.set_bos_id(by_usual_name(tokenizer, kBosNames));
  tokenizer.set_bos_id(by_id(config, "bos_token_id"));
  tokenizer.set_bos_id(by_name(tokenizer, own, "bos_token"));
  tokenizer.set_eos_id(by_usual_name(tokenizer, kEosNames));
  tokenizer.set_eos_id(by_id(config, "eos_token_id"));
  tokenizer.set_eos_id(by_name(tokenizer, own, "eos_token"));
}

}  // namespace

Result<TokenizerPtr> load_tokenizer(const fs::path& folder_or_file) {
  fs::path file = folder_or_file;
  std::error_code ignored;
  if (fs::is_directory(folder_or_file, ignored)) {
    TESSERA_ASSIGN_OR_RETURN(file, find_file(folder_or_file));
  }
  TESSERA_ASSIGN_OR_RETURN(std::string content, read_file(file));
  if (file.extension() == ".bin") {
    TESSERA_ASSIGN_OR_RETURN(auto tokenizer, parse_llama2c_tokenizer(content, file.string()));
    return TokenizerPtr(std::move(tokenizer));
  }
  if (file.extension() == ".txt") {
    TESSERA_ASSIGN_OR_RETURN(auto tokenizer, parse_residue_vocabulary(content, file.string()));
    return TokenizerPtr(std::move(tokenizer));
  }
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, parse_tokenizer_json(content, file.string()));
  find_begin_and_end(*tokenizer, file.parent_path());
  return TokenizerPtr(std::move(tokenizer));
}

}  // namespace tessera::data
