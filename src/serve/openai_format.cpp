#include "serve/openai_format.h"

#include <nlohmann/json.hpp>

#include "grammar/json_schema.h"

namespace tessera::serve {

using nlohmann::json;
using GrammarPtr = std::shared_ptr<const grammar::Grammar>;

namespace {

constexpr size_t kMaxChoiceTexts = 1000;

// The same value with the order of its keys, which is that of the answer's properties.
Result<chat::Value> ordered(std::string_view body, std::initializer_list<const char*> path) {
  TESSERA_ASSIGN_OR_RETURN(chat::Value at, chat::parse_json(body));
  for (const char* key : path) {
    const chat::Value* next = at.dict() ? at.dict()->find(key) : nullptr;
    if (!next) return invalid("'{}' is missing", key);
    at = chat::Value(*next);
  }
  return at;
}

Result<GrammarPtr> of_schema(std::string_view body, std::initializer_list<const char*> path) {
  TESSERA_ASSIGN_OR_RETURN(chat::Value schema, ordered(body, path));
  return grammar::json_of_schema(schema);
}

Result<GrammarPtr> of_response_format(const json& format, std::string_view body) {
  const json* type = format.is_object() && format.contains("type") ? &format["type"] : nullptr;
  if (type && *type == "text") return GrammarPtr();
  if (type && *type == "json_object") return grammar::any_json_object();
  if (type && *type == "json_schema") return of_schema(body, {"response_format", "json_schema", "schema"});
  return invalid("'response_format' must have type text, json_object or json_schema, not {}", shown(format));
}

Result<GrammarPtr> of_choices(const json& choices) {
  if (!is_list_of_texts(choices) || choices.size() > kMaxChoiceTexts)
    return invalid("'guided_choice' must be a list of at most {} strings, and not empty", kMaxChoiceTexts);
  auto texts = choices.get<std::vector<std::string>>();
  if (std::find(texts.begin(), texts.end(), "") != texts.end())
    return invalid("'guided_choice' has an empty string");
  return grammar::one_of(texts);
}

}  // namespace

GrammarPtr read_format(Fields& fields, std::string_view text, bool chat) {
  const json *format = chat ? fields.find("response_format") : nullptr, *schema = fields.find("guided_json"),
             *choices = fields.find("guided_choice");
  if ((format != nullptr) + (schema != nullptr) + (choices != nullptr) > 1)
    fields.refuse("guided_json", "give one of 'response_format', 'guided_json' and 'guided_choice'");
  GrammarPtr out;
  auto take = [&](const char* name, Result<GrammarPtr> made) {
    if (made)
      out = *made;
    else
      fields.refuse(name, made.error().message);
  };
  if (fields.error()) return out;
  if (format) take("response_format", of_response_format(*format, text));
  if (schema) take("guided_json", of_schema(text, {"guided_json"}));
  if (choices) take("guided_choice", of_choices(*choices));
  return out;
}

void apply_format(GrammarPtr format, const ServedName& model, CompletionCall& call) {
  if (!format) return;
  auto masks = make_masks(std::move(format), model.vocabulary);
  for (CompletionRequest& request : call.requests) {
    std::vector<int64_t> ends = request.end_tokens;
    ends.insert(ends.end(), model.end_tokens.begin(), model.end_tokens.end());
    // Without end tokens the answer goes on as long as its grammar does.
    if (request.ignore_eos) ends.clear();
    request.rules.constraint =
        make_constraint(masks, {.end_tokens = std::move(ends),
                                .max_tokens = request.max_tokens,
                                .previous = request.prompt.empty() ? -1 : request.prompt.back()});
  }
}

}  // namespace tessera::serve
