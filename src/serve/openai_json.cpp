#include "serve/openai_json.h"

#include <nlohmann/json.hpp>

namespace tessera::serve {

using nlohmann::json;

namespace {

// JSON has no place for torn characters, so the bytes stand beside the text.
json token_bytes(const std::string& token) {
  json bytes = json::array();
  for (char c : token) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

json completion_logprobs(const std::vector<TokenLogprobs>& tokens) {
  json out = {{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()},
              {"bytes", json::array()}};
  for (const TokenLogprobs& token : tokens) {
    json top = json::object();
    for (const auto& [text, logprob] : token.top) top[text] = logprob;
    out["tokens"].push_back(token.token);
    out["token_logprobs"].push_back(token.logprob ? json(*token.logprob) : json(nullptr));
    out["top_logprobs"].push_back(token.logprob ? top : json(nullptr));
    out["text_offset"].push_back(token.text_offset);
    out["bytes"].push_back(token_bytes(token.token));
  }
  return out;
}

json with_bytes(const std::string& token, double logprob) {
  return {{"token", token}, {"logprob", logprob}, {"bytes", token_bytes(token)}};
}

json chat_logprobs(const std::vector<TokenLogprobs>& tokens) {
  json content = json::array();
  for (const TokenLogprobs& token : tokens) {
    json entry = with_bytes(token.token, token.logprob.value_or(0));
    entry["top_logprobs"] = json::array();
    for (const auto& [text, logprob] : token.top) entry["top_logprobs"].push_back(with_bytes(text, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", content}, {"refusal", nullptr}};
}

json tool_call(const ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

json finish_reason(const CompletionProgress& progress) {
  return progress.reason ? json(to_string(*progress.reason)) : json(nullptr);
}

}  // namespace

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json prompt_logprobs_json(const std::vector<PromptPlace>& places) {
  json out = json::array();
  for (const PromptPlace& place : places) {
    json tokens = json::object();
    for (const RankedToken& token : place)
      tokens[fmt::format("{}", token.id)] = {{"logprob", token.logprob},
                                             {"rank", token.rank},
                                             {"decoded_token", token.token},
                                             {"bytes", token_bytes(token.token)}};
    out.push_back(place.empty() ? json(nullptr) : std::move(tokens));
  }
  return out;
}

json completion_choice(int64_t index, const CompletionProgress& progress, bool with_logprobs) {
  return {{"index", index},
          {"text", progress.text},
          {"logprobs", with_logprobs ? completion_logprobs(progress.logprobs) : json(nullptr)},
          {"finish_reason", finish_reason(progress)}};
}

json chat_choice(int64_t index, const ChatText& text, const CompletionProgress& progress, bool with_logprobs) {
  json message = {{"role", "assistant"}, {"content", text.content}, {"refusal", nullptr}};
  if (!text.calls.empty()) {
    if (text.content.empty()) message["content"] = nullptr;
    for (const ToolCall& call : text.calls) message["tool_calls"].push_back(tool_call(call));
  }
  return {{"index", index},
          {"message", message},
          {"logprobs", with_logprobs ? chat_logprobs(progress.logprobs) : json(nullptr)},
          {"finish_reason", finish_reason(progress)}};
}

json chat_delta(int64_t index, const ChatText& text, const CompletionProgress& progress, bool with_logprobs,
                bool is_first) {
  json delta = json::object();
  if (is_first) delta["role"] = "assistant";
  if (!text.content.empty())
    delta["content"] = text.content;
  else if (is_first)
    delta["content"] = text.calls.empty() ? json("") : json(nullptr);
  for (const ToolCall& call : text.calls) {
    json piece = call.is_new ? tool_call(call) : json{{"function", {{"arguments", call.arguments}}}};
    piece["index"] = call.index;
    delta["tool_calls"].push_back(std::move(piece));
  }
  bool has_logprobs = with_logprobs && !progress.logprobs.empty();
  return {{"index", index},
          {"delta", delta},
          {"logprobs", has_logprobs ? chat_logprobs(progress.logprobs) : json(nullptr)},
          {"finish_reason", finish_reason(progress)}};
}

}  // namespace tessera::serve
