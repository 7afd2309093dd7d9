// POST /v1/chat/completions: a conversation becomes a prompt by the model's own template.
#include <nlohmann/json.hpp>

#include "serve/openai_tools.h"

namespace tessera::serve {

using chat::Dict;
using chat::Value;
using nlohmann::json;

namespace {

constexpr int64_t kMaxTopLogprobs = 20;

struct MessageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const Value* find(const Value& object, const char* key) {
  const Value* found = object.dict() ? object.dict()->find(key) : nullptr;
  return found && !found->is_none() ? found : nullptr;
}

// Text as it is, or the texts of a list of parts, on lines of their own.
Value read_content(const Value& content, const std::string& where) {
  if (content.text()) return content;
  if (!content.sequence())
    throw MessageError(where + ".content must be a string or a list of parts of type text");
  std::string joined;
  for (const Value& part : content.sequence()->items) {
    const Value *type = find(part, "type"), *text = find(part, "text");
    bool is_text = type && type->text() && *type->text() == "text" && text && text->text();
    if (!is_text)
      throw MessageError(
          fmt::format("{}.content: only parts of type text are supported{}", where,
                      type && type->text() ? fmt::format(", not '{}'", type->text()->substr(0, 50)) : ""));
    joined += (joined.empty() ? "" : "\n") + *text->text();
  }
  return joined;
}

// Most templates expect the arguments of earlier calls as values; clients send them as JSON text.
Value read_tool_call(const Value& call, const std::string& where, bool arguments_as_text) {
  const Value* function = find(call, "function");
  const Value* name = function ? find(*function, "name") : nullptr;
  if (!name || !name->text()) throw MessageError(where + ": each of tool_calls needs a function with a name");
  Dict opened = *function->dict();
  if (const Value* arguments = find(*function, "arguments"); arguments && arguments->text()) {
    auto parsed = chat::parse_json(arguments->text()->empty() ? "{}" : *arguments->text());
    if (!parsed)
      throw MessageError(
          fmt::format("{}: the arguments of '{}' are {}", where, *name->text(), parsed.error().message));
    if (!arguments_as_text) opened.set("arguments", *parsed);
  }
  Dict out = *call.dict();
  out.set("function", Value(std::move(opened)));
  return out;
}

Value read_tool_calls(const Value& calls, const std::string& where, bool arguments_as_text) {
  if (!calls.sequence()) throw MessageError(where + ".tool_calls must be a list");
  std::vector<Value> out;
  for (const Value& call : calls.sequence()->items)
    out.push_back(read_tool_call(call, where, arguments_as_text));
  return out;
}

struct TemplateNeeds {
  bool knows_developer, arguments_as_text, content_as_text;
};

Value read_message(const Value& message, size_t index, TemplateNeeds needs) {
  std::string where = fmt::format("messages[{}]", index);
  const Value* role = find(message, "role");
  if (!role || !role->text()) throw MessageError(where + " needs a role");
  constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};
  if (std::find(std::begin(kRoles), std::end(kRoles), *role->text()) == std::end(kRoles))
    throw MessageError(fmt::format("{}.role must be system, developer, user, assistant or tool, not '{}'",
                                   where, role->text()->substr(0, 50)));
  Dict out = *message.dict();
  if (*role->text() == "developer" && !needs.knows_developer) out.set("role", "system");
  const Value *content = find(message, "content"), *calls = find(message, "tool_calls");
  if (!content && !calls) throw MessageError(where + " needs a content");
  Value text = content ? read_content(*content, where) : Value();
  bool is_absent = calls && !text.truth();
  if (is_absent) text = needs.content_as_text ? Value("") : Value();
  out.set("content", std::move(text));
  if (calls) out.set("tool_calls", read_tool_calls(*calls, where, needs.arguments_as_text));
  return out;
}

Value read_messages(const Value& body, const ServedName& model) {
  const Value* messages = find(body, "messages");
  if (!messages || !messages->sequence() || messages->sequence()->items.empty())
    throw MessageError("'messages' must be a list of messages, and not empty");
  const auto& tools = model.tool_format;
  TemplateNeeds needs{model.chat->source.find("developer") != std::string::npos,
                      tools && tools->arguments_as_text, tools && tools->content_as_text};
  std::vector<Value> out;
  for (size_t i = 0; i < messages->sequence()->items.size(); ++i)
    out.push_back(read_message(messages->sequence()->items[i], i, needs));
  return out;
}

// What the template sees. A client's own variables cannot take the place of the conversation.
Dict template_variables(const Value& body, const ServedName& model) {
  Dict out = model.chat->special_tokens;
  if (const Value* own = find(body, "chat_template_kwargs")) {
    if (!own->dict()) throw MessageError("'chat_template_kwargs' must be an object");
    for (const auto& [key, value] : own->dict()->items()) out.set(key, value);
  }
  out.set("messages", read_messages(body, model));
  const Value* begins_answer = find(body, "add_generation_prompt");  // of /tokenize
  out.set("add_generation_prompt", !begins_answer || begins_answer->truth());
  const Value* tools = find(body, "tools");
  out.set("tools", tools && tools->truth() ? *tools : Value());
  return out;
}

std::optional<int64_t> read_logprobs(Fields& fields) {
  bool wanted = fields.boolean("logprobs", false);
  auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top && !wanted) fields.refuse("top_logprobs", "'top_logprobs' needs 'logprobs': true");
  return wanted ? std::optional(top.value_or(0)) : std::nullopt;
}

// Inside of calls a stop string would leave torn JSON.
void read_calls(CompletionRequest& request, const CalledTools& tools) {
  request.show_special = true;
  if (tools.begin == chat::ToolParser::with_call) request.stop.clear();
  if (tools.begin == chat::ToolParser::with_call_or_text) request.stop_until = tools.format.trigger();
}

CallResult read_chat(const json& body, std::string_view text, const data::Tokenizer& tokenizer,
                     const ServedName& model) {
  Fields fields(body);
  CompletionCall call{.chat = true};
  const int64_t adapter = check_model(fields, model);
  call.model = model.name_of(adapter);
  CompletionRequest request = read_sampling(fields);
  request.adapter = adapter;
  read_delivery(fields, call);
  read_prompt_logprobs(fields, request, call);
  // Who wants to know the prompt's log probabilities may do without an answer.
  const int64_t least = request.prompt_logprobs ? 0 : 1;
  auto old_limit = fields.integer("max_tokens", least, INT32_MAX),
       limit = fields.integer("max_completion_tokens", least, INT32_MAX);
  if (old_limit && limit && *old_limit != *limit)
    fields.refuse("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; give one of them");
  request.logprobs = read_logprobs(fields);
  call.with_logprobs = request.logprobs.has_value();
  OrderedBody ordered(text);
  auto format = read_tools(fields, ordered, model, call);
  bool may_call = call.tools.has_value();
  if (!may_call) format = read_format(fields, ordered, true);
  for (const char* name : {"messages", "chat_template_kwargs"}) fields.find(name);
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();
  if (!model.chat) return ApiError{.message = model.no_chat};

  if (!ordered.value()) return ApiError{.message = ordered.value().error().message};
  auto prompt = render_conversation(*ordered.value(), model);
  if (!prompt) return ApiError{.message = prompt.error().message, .param = "messages"};
  request.prompt = tokenizer.encode(*prompt);
  request.end_tokens = model.chat->end_tokens;
  request.max_tokens = limit       ? *limit
                       : old_limit ? *old_limit
                                   : std::max<int64_t>(1, model.max_length - std::ssize(request.prompt));
  if (may_call) read_calls(request, *call.tools);
  add_choices(request, call);
  apply_format(std::move(format), may_call ? model.tool_vocabulary : model.vocabulary, model, call);
  return call;
}

}  // namespace

Result<std::string> render_conversation(const Value& body, const ServedName& model) {
  try {
    return model.chat->chat_template.render(template_variables(body, model));
  } catch (const MessageError& error) {
    return invalid("{}", error.what());
  } catch (const chat::TemplateError& error) {
    return invalid("{}", error.what());
  }
}

std::variant<CompletionCall, ApiError> parse_chat_call(std::string_view body, const data::Tokenizer& tokenizer,
                                                       const ServedName& model) {
  return read_body(body, [&](const json& parsed) { return read_chat(parsed, body, tokenizer, model); });
}

}  // namespace tessera::serve
