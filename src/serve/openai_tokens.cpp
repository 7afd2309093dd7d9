#include "serve/openai_tokens.h"

#include <nlohmann/json.hpp>

#include "serve/openai_format.h"
#include "serve/openai_json.h"

namespace tessera::serve {

using nlohmann::json;
using Converted = std::variant<std::string, ApiError>;

namespace {

// `model` may be left out here.
void check_name(Fields& fields, const ServedName& model) {
  if (fields.find("model")) check_model(fields, model);
}

Converted read_tokenize(const json& body, std::string_view text, const data::Tokenizer& tokenizer,
                        const ServedName& model) {
  Fields fields(body);
  check_name(fields, model);
  const json *prompt = fields.find("prompt"), *messages = fields.find("messages");
  for (const char* name : {"tools", "chat_template_kwargs"}) fields.find(name);
  fields.boolean("add_generation_prompt", true);
  bool special = fields.boolean("add_special_tokens", prompt != nullptr),
       with_texts = fields.boolean("return_token_strs", false);
  if ((prompt != nullptr) == (messages != nullptr))
    fields.refuse("prompt", "one of 'prompt' and 'messages' is needed");
  if (prompt && !prompt->is_string()) fields.refuse("prompt", "'prompt' must be a string");
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();
  if (messages && !model.chat) return ApiError{.message = model.no_chat};
  std::string written = prompt ? prompt->get<std::string>() : "";
  if (messages) {
    OrderedBody ordered(text);
    if (!ordered.value()) return to_api_error(ordered.value().error());
    auto rendered = render_conversation(*ordered.value(), model);
    if (!rendered) return ApiError{.message = rendered.error().message, .param = "messages"};
    written = *rendered;
  }
  auto tokens = tokenizer.encode(written, {.add_special_tokens = special});
  json out = {{"count", tokens.size()}, {"max_model_len", model.max_length}, {"tokens", tokens}};
  if (with_texts)
    for (int64_t token : tokens) out["token_strs"].push_back(tokenizer.bytes_of(token));
  return dump(out);
}

Converted read_detokenize(const json& body, const data::Tokenizer& tokenizer, const ServedName& model) {
  Fields fields(body);
  check_name(fields, model);
  const json* tokens = fields.find("tokens");
  auto is_id = [&](const json& id) {
    return id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(tokenizer.vocab_size());
  };
  bool are_ids = tokens && tokens->is_array() && std::all_of(tokens->begin(), tokens->end(), is_id);
  if (!are_ids)
    fields.refuse("tokens",
                  fmt::format("'tokens' must be a list of token ids below {}", tokenizer.vocab_size()));
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();
  return dump(
      {{"prompt", tokenizer.decode(tokens->get<std::vector<int64_t>>(), /*skip_special_tokens=*/false)}});
}

// read_body() is for calls; what is read here ends at once.
Converted read(std::string_view body, const std::function<Converted(const json&)>& reader) {
  Converted out = std::string();
  auto result = read_body(body, [&](const json& parsed) -> CallResult {
    out = reader(parsed);
    return CompletionCall();
  });
  if (auto* error = std::get_if<ApiError>(&result)) return std::move(*error);
  return out;
}

}  // namespace

Converted tokenize(std::string_view body, const data::Tokenizer& tokenizer, const ServedName& model) {
  return read(body, [&](const json& parsed) { return read_tokenize(parsed, body, tokenizer, model); });
}

Converted detokenize(std::string_view body, const data::Tokenizer& tokenizer, const ServedName& model) {
  return read(body, [&](const json& parsed) { return read_detokenize(parsed, tokenizer, model); });
}

}  // namespace tessera::serve
