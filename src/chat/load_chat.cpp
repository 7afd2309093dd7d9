// Where Hugging Face's folders keep the template and the special tokens.
#include "chat/chat_template.h"
#include "core/file.h"

namespace tessera::chat {

namespace {

Result<Value> read_json(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  auto value = parse_json(text);
  return value ? std::move(value) : Result<Value>(value.error().within(path.string()));
}

// A special token is a text or an object with its content.
void add_special_tokens(const Value& config, Dict& tokens) {
  if (!config.dict()) return;
  for (const auto& [key, value] : config.dict()->items()) {
    if (!key.text() || !key.text()->ends_with("_token")) continue;
    const Value* content = value.dict() ? value.dict()->find("content") : &value;
    if (content && content->text()) tokens.set(key, *content);
  }
}

// The text of `chat_template`: one, or several with names.
std::optional<std::string> template_in(const Value& config) {
  const Value* found = config.dict() ? config.dict()->find("chat_template") : nullptr;
  if (!found) return std::nullopt;
  if (found->text()) return *found->text();
  if (!found->sequence()) return std::nullopt;
  for (const Value& named : found->sequence()->items) {
    if (!named.dict()) continue;
    const Value *name = named.dict()->find("name"), *text = named.dict()->find("template");
    if (name && text && text->text() && name->text() && *name->text() == "default") return *text->text();
  }
  return std::nullopt;
}

// One id or several; chat models often end a turn with another token than a text.
Result<std::vector<int64_t>> read_end_tokens(const std::filesystem::path& path) {
  std::vector<int64_t> out;
  if (!std::filesystem::exists(path)) return out;
  TESSERA_ASSIGN_OR_RETURN(Value config, read_json(path));
  const Value* ids = config.dict() ? config.dict()->find("eos_token_id") : nullptr;
  if (ids && ids->is_integer()) out.push_back(ids->integer());
  if (!ids || !ids->sequence()) return out;
  for (const Value& id : ids->sequence()->items)
    if (id.is_integer()) out.push_back(id.integer());
  return out;
}

}  // namespace

Result<std::optional<ModelChat>> load_model_chat(const std::filesystem::path& folder,
                                                 const std::filesystem::path& template_file) {
  namespace fs = std::filesystem;
  Dict tokens;
  std::optional<std::string> source;
  fs::path from;
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json", "chat_template.json"}) {
    if (!fs::exists(folder / name)) continue;
    TESSERA_ASSIGN_OR_RETURN(Value config, read_json(folder / name));
    add_special_tokens(config, tokens);
    auto text = template_in(config);
    if (!text) continue;
    source = std::move(text);
    from = folder / name;
  }
  fs::path file = template_file.empty() ? folder / "chat_template.jinja" : template_file;
  if (!template_file.empty() || fs::exists(file)) {
    TESSERA_ASSIGN_OR_RETURN(source, read_file(file));
    from = file;
  }
  if (!source) return std::optional<ModelChat>();
  auto parsed = ChatTemplate::parse(*source);
  if (!parsed) return parsed.error().within(from.string());
  TESSERA_ASSIGN_OR_RETURN(auto end_tokens, read_end_tokens(folder / "generation_config.json"));
  return std::optional(
      ModelChat{std::move(*parsed), std::move(*source), std::move(tokens), std::move(end_tokens)});
}

}  // namespace tessera::chat
