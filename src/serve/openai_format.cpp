#include "serve/openai_format.h"

#include <nlohmann/json.hpp>

#include "grammar/json_schema.h"

namespace tessera::serve {

using nlohmann::json;
using GrammarPtr = std::shared_ptr<const grammar::Grammar>;

namespace {

constexpr size_t kMaxChoiceTexts = 1000;

Result<chat::Value> at_path(OrderedBody& body, std::initializer_list<const char*> path) {
  if (!body.value()) return body.value().error();
  chat::Value at = *body.value();
  for (const char* key : path) {
    const chat::Value* next = at.dict() ? at.dict()->find(key) : nullptr;
    if (!next) return invalid("'{}' is missing", key);
    at = chat::Value(*next);
  }
  return at;
}

// A schema, or its JSON as text.
Result<GrammarPtr> of_schema(OrderedBody& body, std::initializer_list<const char*> path) {
  TESSERA_ASSIGN_OR_RETURN(chat::Value schema, at_path(body, path));
  if (schema.text()) {
    TESSERA_ASSIGN_OR_RETURN(schema, chat::parse_json(std::string(*schema.text())));
  }
  return grammar::json_of_schema(schema);
}

bool has_response_type(const json& format, const char* type) {
  return format.is_object() && format.contains("type") && format["type"] == type;
}

Result<GrammarPtr> of_response_format(const json& format, OrderedBody& body) {
  if (has_response_type(format, "text")) return GrammarPtr();
  if (has_response_type(format, "json_object")) return grammar::any_json_object();
  if (has_response_type(format, "json_schema"))
    return of_schema(body, {"response_format", "json_schema", "schema"});
  return invalid("'response_format' must have type text, json_object or json_schema, not {}", shown(format));
}

Result<GrammarPtr> of_choices(const json& choices, const std::string& name) {
  if (!is_list_of_texts(choices) || choices.size() > kMaxChoiceTexts)
    return invalid("'{}' must be a list of at most {} strings, and not empty", name, kMaxChoiceTexts);
  auto texts = choices.get<std::vector<std::string>>();
  if (std::find(texts.begin(), texts.end(), "") != texts.end())
    return invalid("'{}' has an empty string", name);
  return grammar::one_of(texts);
}

Result<GrammarPtr> of_regex(const json& regex, const std::string& name) {
  if (!regex.is_string()) return invalid("'{}' must be a string, not {}", name, shown(regex));
  auto made = grammar::text_of_regex(regex.get<std::string>());
  return made ? std::move(made) : Result<GrammarPtr>(made.error().within(name));
}

// One way in which a request can name the form of its answer.
struct Form {
  std::string name;
  std::function<Result<GrammarPtr>()> make;
};

// vLLM's older names, at the top of the request.
void add_guided(Fields& fields, OrderedBody& body, std::vector<Form>& forms) {
  if (fields.find("guided_json"))
    forms.push_back({"guided_json", [&] { return of_schema(body, {"guided_json"}); }});
  if (const json* regex = fields.find("guided_regex"))
    forms.push_back({"guided_regex", [=] { return of_regex(*regex, "guided_regex"); }});
  if (const json* choices = fields.find("guided_choice"))
    forms.push_back({"guided_choice", [=] { return of_choices(*choices, "guided_choice"); }});
}

// vLLM's newer ones, in an object of their own.
void add_structured(Fields& fields, OrderedBody& body, std::vector<Form>& forms) {
  const std::string name = "structured_outputs";
  const json* value = fields.find(name);
  if (!value) return;
  if (!value->is_object()) return fields.refuse(name, "'structured_outputs' must be an object");
  Fields own(*value);
  if (own.find("json"))
    forms.push_back({name, [&] { return of_schema(body, {"structured_outputs", "json"}); }});
  if (const json* regex = own.find("regex")) forms.push_back({name, [=] { return of_regex(*regex, "regex"); }});
  if (const json* choices = own.find("choice"))
    forms.push_back({name, [=] { return of_choices(*choices, "choice"); }});
  if (own.boolean("json_object", false)) forms.push_back({name, [] { return grammar::any_json_object(); }});
  own.refuse_unknown();
  if (own.error()) fields.refuse(name, "structured_outputs: " + own.error()->message);
}

}  // namespace

const Result<chat::Value>& OrderedBody::value() {
  if (!value_) value_ = chat::parse_json(text_);
  return *value_;
}

GrammarPtr read_format(Fields& fields, OrderedBody& body, bool chat) {
  std::vector<Form> forms;
  const json* format = chat ? fields.find("response_format") : nullptr;
  if (format) forms.push_back({"response_format", [&] { return of_response_format(*format, body); }});
  add_guided(fields, body, forms);
  add_structured(fields, body, forms);
  if (forms.size() > 1)
    fields.refuse(forms[1].name, fmt::format("'{}' and '{}' both name the form of the answer; give one of them",
                                             forms[0].name, forms[1].name));
  if (forms.empty() || fields.error()) return nullptr;
  auto made = forms[0].make();
  if (made) return *made;
  fields.refuse(forms[0].name, made.error().message);
  return nullptr;
}

void refuse_guided(Fields& fields) {
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "structured_outputs"})
    if (fields.find(name))
      fields.refuse(name, fmt::format("'{}' cannot go with 'tools' unless 'tool_choice' is none", name));
}

std::optional<chat::Value> response_schema(Fields& fields, OrderedBody& body) {
  const json* format = fields.find("response_format");
  if (!format || has_response_type(*format, "text")) return std::nullopt;
  if (has_response_type(*format, "json_object")) {
    chat::Dict any_object;
    any_object.set("type", "object");
    return chat::Value(std::move(any_object));
  }
  auto schema = at_path(body, {"response_format", "json_schema", "schema"});
  if (schema) return *schema;
  fields.refuse("response_format", schema.error().message);
  return std::nullopt;
}

void apply_format(GrammarPtr format, std::shared_ptr<const Vocabulary> vocabulary, const ServedName& model,
                  CompletionCall& call) {
  if (!format) return;
  auto masks = make_masks(std::move(format), std::move(vocabulary));
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
