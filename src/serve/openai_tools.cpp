#include "serve/openai_tools.h"

#include <nlohmann/json.hpp>
#include <random>

#include "grammar/tool_grammar.h"

namespace tessera::serve {

using nlohmann::json;
using Begin = chat::ToolParser::Begin;

namespace {

constexpr size_t kMaxTools = 128, kMaxNameLength = 64;

struct ToolError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

bool is_function_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameLength && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
}

// The schema of a call's arguments, which are an object whatever else it says.
chat::Value object_schema(const chat::Value* parameters, const std::string& where) {
  chat::Dict schema;
  if (!parameters || parameters->is_none()) {
    schema.set("type", "object");
    schema.set("additionalProperties", false);
    return schema;
  }
  if (!parameters->dict()) throw ToolError(where + ".parameters must be a JSON schema, an object");
  const chat::Value* type = parameters->dict()->find("type");
  if (type && !(type->text() && *type->text() == "object"))
    throw ToolError(where + ".parameters must have type object");
  schema = *parameters->dict();
  if (!type) schema.set("type", "object");
  return schema;
}

grammar::ToolFunction read_function(const chat::Value& tool, size_t index) {
  std::string where = fmt::format("tools[{}]", index);
  auto find = [](const chat::Value* object, const char* key) {
    return object && object->dict() ? object->dict()->find(key) : nullptr;
  };
  const chat::Value *type = find(&tool, "type"), *function = find(&tool, "function"),
                    *name = find(function, "name");
  if (!type || !type->text() || *type->text() != "function")
    throw ToolError(where + ".type must be 'function'; other kinds are not supported");
  if (!name || !name->text() || !is_function_name(*name->text()))
    throw ToolError(
        fmt::format("{}.function.name must have 1 to {} letters, digits, underscores, dots and dashes", where,
                    kMaxNameLength));
  return {*name->text(), object_schema(find(function, "parameters"), where + ".function")};
}

std::vector<grammar::ToolFunction> read_functions(const chat::Value& tools) {
  const chat::Sequence* list = tools.sequence();
  if (!list || list->items.size() > kMaxTools)
    throw ToolError(fmt::format("'tools' must be a list of at most {} functions", kMaxTools));
  std::vector<grammar::ToolFunction> out;
  for (size_t i = 0; i < list->items.size(); ++i) {
    out.push_back(read_function(list->items[i], i));
    for (size_t k = 0; k < i; ++k)
      if (out[k].name == out[i].name)
        throw ToolError(fmt::format("tools[{}] and tools[{}] have the same name '{}'", k, i, out[i].name));
  }
  return out;
}

struct Wanted {
  enum Mode { none, automatic, required, named } mode = none;
  std::vector<std::string> names;  // only these may be called; empty: all
};

std::string named_function(const json& choice) {
  const json* function = choice.contains("function") ? &choice["function"] : nullptr;
  if (!function || !function->is_object() || !function->contains("name") || !(*function)["name"].is_string())
    throw ToolError("'tool_choice' of type function needs a function with a name");
  return (*function)["name"].get<std::string>();
}

Wanted allowed_tools(const json& choice) {
  const json allowed = choice.value("allowed_tools", json());
  const json mode = allowed.is_object() ? allowed.value("mode", json()) : json();
  if (mode != "auto" && mode != "required")
    throw ToolError("'tool_choice' of type allowed_tools needs a mode, auto or required, and tools");
  Wanted out{mode == "auto" ? Wanted::automatic : Wanted::required};
  const json tools = allowed.value("tools", json());
  if (!tools.is_array() || tools.empty()) throw ToolError("'tool_choice': tools must be a list, and not empty");
  for (const json& tool : tools) {
    if (!tool.is_object()) throw ToolError("'tool_choice': each of the allowed tools must be a function");
    out.names.push_back(named_function(tool));
  }
  return out;
}

Wanted read_choice(const json* choice, bool has_tools) {
  if (!choice) return {has_tools ? Wanted::automatic : Wanted::none};
  if (*choice == "none" || (*choice == "auto" && !has_tools)) return {Wanted::none};
  if (!has_tools) throw ToolError("'tool_choice' needs 'tools'");
  if (*choice == "auto") return {Wanted::automatic};
  if (*choice == "required") return {Wanted::required};
  if (choice->is_object() && choice->value("type", json()) == "function")
    return {Wanted::named, {named_function(*choice)}};
  if (choice->is_object() && choice->value("type", json()) == "allowed_tools") return allowed_tools(*choice);
  throw ToolError(
      fmt::format("'tool_choice' must be none, auto, required, or an object that names a function, not {}",
                  shown(*choice)));
}

void keep_named(std::vector<grammar::ToolFunction>& functions, const std::vector<std::string>& names) {
  if (names.empty()) return;
  for (const std::string& name : names)
    if (std::none_of(functions.begin(), functions.end(), [&](const auto& own) { return own.name == name; }))
      throw ToolError(fmt::format("'tool_choice' names '{}', which is not in 'tools'", name.substr(0, 80)));
  std::erase_if(functions, [&](const auto& own) {
    return std::find(names.begin(), names.end(), own.name) == names.end();
  });
}

std::shared_ptr<const grammar::Grammar> grammar_of(const std::vector<grammar::ToolFunction>& functions,
                                                   const CalledTools& tools, bool several,
                                                   const chat::Value* content_schema) {
  grammar::ToolChoice choice{.required = tools.begin == Begin::with_call,
                             .several = several && !tools.named,
                             .content_schema = content_schema};
  auto made = grammar::answers_with_calls(tools.format, functions, choice);
  if (!made) throw ToolError(made.error().message);
  return *made;
}

std::string fresh_call_id() {
  static constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  thread_local std::random_device device;
  std::string out;
  for (size_t i = 0; i < chat::kCallIdLength; ++i) out += kDigits[device() % kDigits.size()];
  return out;
}

}  // namespace

std::shared_ptr<const grammar::Grammar> read_tools(Fields& fields, OrderedBody& body, const ServedName& model,
                                                   CompletionCall& call) {
  const json *tools = fields.find("tools"), *choice = fields.find("tool_choice");
  bool several = fields.boolean("parallel_tool_calls", true);
  if (fields.error()) return nullptr;
  try {
    Wanted wanted = read_choice(choice, tools && !tools->empty());
    if (!tools) return nullptr;
    if (!body.value()) throw ToolError(body.value().error().message);
    auto functions = read_functions(*body.value()->dict()->find("tools"));
    if (wanted.mode == Wanted::none) return nullptr;
    keep_named(functions, wanted.names);
    if (model.chat && !model.tool_format) throw ToolError(model.no_tools);
    if (!model.chat) return nullptr;  // told by who renders
    CalledTools called{.format = *model.tool_format, .named = wanted.mode == Wanted::named};
    if (wanted.mode != Wanted::automatic) called.begin = Begin::with_call;
    refuse_guided(fields);
    auto schema = response_schema(fields, body);
    if (wanted.mode != Wanted::automatic) schema.reset();
    if (schema && !called.format.has_mark())
      throw ToolError(
          "'response_format' beside 'tools' needs a model that marks its calls; set 'tool_choice' to none or "
          "required, or leave one of them out");
    if (schema) called.begin = Begin::with_call_or_json;
    auto grammar = grammar_of(functions, called, several, schema ? &*schema : nullptr);
    call.tools = std::move(called);
    return fields.error() ? nullptr : grammar;
  } catch (const ToolError& error) {
    fields.refuse("tools", error.what());
  } catch (const chat::TemplateError& error) {
    fields.refuse("tools", error.what());
  }
  return nullptr;
}

AnswerReader::AnswerReader(const std::optional<CalledTools>& tools) {
  if (!tools) return;
  parser_.emplace(tools->format, tools->begin);
  named_ = tools->named;
}

ChatText AnswerReader::read(CompletionProgress& progress) {
  if (!parser_) return {.content = progress.text, .calls = {}};
  ChatText out;
  auto take = [&](chat::AnswerPiece piece) {
    out.content += piece.content;
    for (chat::CallPiece& call : piece.calls) {
      bool goes_on = !call.name && !out.calls.empty() && out.calls.back().index == call.index;
      if (goes_on)
        out.calls.back().arguments += call.arguments;
      else
        out.calls.push_back({.index = call.index,
                             .id = call.name ? fresh_call_id() : "",
                             .name = call.name.value_or(""),
                             .arguments = std::move(call.arguments),
                             .is_new = call.name.has_value()});
    }
  };
  take(parser_->push(progress.text));
  if (!progress.finished) return out;
  take(parser_->finish());
  bool called = parser_->num_calls() > 0 && progress.reason == FinishReason::stop && !named_;
  if (called) progress.reason = FinishReason::tool_calls;
  return out;
}

void append(ChatText& all, ChatText more) {
  all.content += more.content;
  for (ToolCall& call : more.calls) {
    if (call.is_new)
      all.calls.push_back(std::move(call));
    else
      all.calls.back().arguments += call.arguments;
  }
}

void ServedName::set_chat(chat::ModelChat model_chat, const data::TokenizerPtr& tokenizer) {
  chat = std::move(model_chat);
  std::vector<std::string> ends;
  for (const auto& tokens : {end_tokens, chat->end_tokens})
    for (int64_t token : tokens) ends.emplace_back(tokenizer->bytes_of(token));
  auto found = chat::find_tool_format(*chat, ends);
  if (!found) {
    no_tools = fmt::format(
        "this model's tool calls cannot be read: {}; use 'tool_choice': 'none' to show it the tools only",
        found.error().message);
    return;
  }
  tool_format = std::move(*found);
  std::string marks = tool_format->before_content + '\0' + tool_format->after_call + '\0' +
                      tool_format->between_calls + '\0' + tool_format->after_calls + '\0' +
                      tool_format->before_calls;
  for (const chat::CallPart& part : tool_format->parts) marks += '\0' + part.text;
  tool_vocabulary = std::make_shared<const Vocabulary>(tokenizer, marks);
}

}  // namespace tessera::serve
