#include "serve/openai_fields.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <random>

#include "core/nearest.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

constexpr int64_t kMaxChoices = 128, kMaxStops = 16, kMaxBiases = 1024, kMaxPromptLogprobs = 20;
constexpr int kMaxDepth = 200;
constexpr size_t kShownBytes = 100;

uint64_t fresh_seed() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

std::vector<std::string> read_stops(Fields& fields) {
  const json* value = fields.find("stop");
  if (!value) return {};
  std::vector<std::string> stops;
  if (value->is_string()) stops.push_back(value->get<std::string>());
  if (is_list_of_texts(*value)) stops = value->get<std::vector<std::string>>();
  bool empty_list = value->is_array() && value->empty();
  bool has_empty = std::find(stops.begin(), stops.end(), "") != stops.end();
  if ((stops.empty() && !empty_list) || has_empty || std::ssize(stops) > kMaxStops)
    fields.refuse("stop", fmt::format("'stop' must be a string or a list of at most {} strings, none of them "
                                      "empty, not {}",
                                      kMaxStops, shown(*value)));
  return stops;
}

// {"50256": -100, ...}: tokens by their ids.
std::vector<std::pair<int64_t, float>> read_bias(Fields& fields) {
  const json* value = fields.find("logit_bias");
  std::vector<std::pair<int64_t, float>> out;
  if (!value) return out;
  if (!value->is_object() || std::ssize(*value) > kMaxBiases) {
    fields.refuse("logit_bias", fmt::format("'logit_bias' must be an object of at most {} token ids, not {}",
                                            kMaxBiases, shown(*value)));
    return out;
  }
  for (const auto& [key, bias] : value->items()) {
    bool is_id = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    bool fits = bias.is_number() && std::abs(bias.get<double>()) <= 100;
    if (is_id && fits)
      out.emplace_back(std::stoll(key), bias.get<float>());
    else
      fields.refuse("logit_bias",
                    fmt::format("'logit_bias' must give a token id a number from -100 to 100, not '{}': {}",
                                key.substr(0, kShownBytes), shown(bias)));
  }
  return out;
}

}  // namespace

std::string shown(const json& value) {
  std::string text = value.dump();
  if (text.size() <= kShownBytes) return text;
  size_t end = kShownBytes;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

bool is_list_of_texts(const json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const json& text) { return text.is_string(); });
}

const json* Fields::find(const std::string& name) {
  known_.push_back(name);
  auto found = body_.find(name);
  return found == body_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::refuse(ApiError error) {
  if (!error_) error_ = std::move(error);
}
void Fields::refuse(const std::string& name, std::string message) {
  refuse({.message = std::move(message), .param = name});
}

bool Fields::boolean(const std::string& name, bool fallback) {
  const json* value = find(name);
  if (!value) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  refuse(name, fmt::format("'{}' must be true or false, not {}", name, shown(*value)));
  return fallback;
}

std::optional<int64_t> Fields::integer(const std::string& name, int64_t least, int64_t most) {
  const json* value = find(name);
  if (!value) return std::nullopt;
  bool fits = value->is_number_integer() &&
              (!value->is_number_unsigned() || value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
  if (fits && value->get<int64_t>() >= least && value->get<int64_t>() <= most) return value->get<int64_t>();
  refuse(name, fmt::format("'{}' must be an integer from {} to {}, not {}", name, least, most, shown(*value)));
  return std::nullopt;
}

double Fields::number(const std::string& name, double fallback, double least, double most) {
  const json* value = find(name);
  if (!value) return fallback;
  if (value->is_number() && value->get<double>() >= least && value->get<double>() <= most)
    return value->get<double>();
  refuse(name, fmt::format("'{}' must be a number from {} to {}, not {}", name, least, most, shown(*value)));
  return fallback;
}

std::string Fields::text(const std::string& name, std::string fallback) {
  const json* value = find(name);
  if (!value) return fallback;
  if (value->is_string()) return value->get<std::string>();
  refuse(name, fmt::format("'{}' must be a string, not {}", name, shown(*value)));
  return fallback;
}

void Fields::only(const std::string& name, const json& neutral) {
  const json* value = find(name);
  if (value && *value != neutral && !value->empty())
    refuse(name, fmt::format("'{}' is not supported with {}; leave it out", name, shown(*value)));
}

void Fields::refuse_unknown() {
  for (const auto& [key, value] : body_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::string name = shown(key);
    name = name.substr(1, name.size() - 2);
    error_ = ApiError{.message = fmt::format("unrecognized request argument '{}'{}", name,
                                             did_you_mean(key.substr(0, kShownBytes), known_)),
                      .param = name};
    return;
  }
}

CompletionRequest read_sampling(Fields& fields) {
  CompletionRequest request;
  request.sampling.temperature = fields.number("temperature", 1, 0, 100);
  request.sampling.top_p = fields.number("top_p", 1, 1e-9, 1);
  request.sampling.top_k = fields.integer("top_k", -1, INT32_MAX).value_or(0);
  request.sampling.min_p = fields.number("min_p", 0, 0, 1);
  auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  request.sampling.seed = seed ? static_cast<uint64_t>(*seed) : fresh_seed();
  request.rules.bias = read_bias(fields);
  request.rules.presence_penalty = fields.number("presence_penalty", 0, -2, 2);
  request.rules.frequency_penalty = fields.number("frequency_penalty", 0, -2, 2);
  request.rules.repetition_penalty = fields.number("repetition_penalty", 1, 0.01, 100);
  request.rules.min_tokens = fields.integer("min_tokens", 0, INT32_MAX).value_or(0);
  request.ignore_eos = fields.boolean("ignore_eos", false);
  request.stop = read_stops(fields);
  request.priority = fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0);
  request.tenant = fields.text("user", "");
  request.cache_salt = fields.text("cache_salt", "");
  // For the caller's own book-keeping; they change no answer.
  for (const char* name : {"metadata", "store"}) fields.find(name);
  return request;
}

// REQUIRES: read_delivery() has read `call`.
void read_prompt_logprobs(Fields& fields, CompletionRequest& request, CompletionCall& call) {
  request.prompt_logprobs = fields.integer("prompt_logprobs", 0, kMaxPromptLogprobs);
  call.with_prompt_logprobs = request.prompt_logprobs.has_value();
  if (call.with_prompt_logprobs && call.stream)
    fields.refuse("prompt_logprobs", "'prompt_logprobs' cannot be streamed; leave out 'stream'");
}

void read_delivery(Fields& fields, CompletionCall& call) {
  call.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  call.stream = fields.boolean("stream", false);
  const json* value = fields.find("stream_options");
  if (!value) return;
  if (!value->is_object()) return fields.refuse("stream_options", "'stream_options' must be an object");
  Fields options(*value);
  call.include_usage = options.boolean("include_usage", false);
  options.boolean("include_obfuscation", false);
  options.refuse_unknown();
  if (options.error()) fields.refuse("stream_options", "stream_options: " + options.error()->message);
}

int64_t check_model(Fields& fields, const ServedName& model) {
  const json* name = fields.find("model");
  if (!name || !name->is_string()) {
    fields.refuse("model", "'model' is missing");
    return -1;
  }
  if (name->get<std::string>() == model.name) return -1;
  const auto adapter = std::ranges::find(model.adapters, name->get<std::string>());
  if (adapter != model.adapters.end()) return adapter - model.adapters.begin();
  fields.refuse(
      {.status = 404,
       .message = fmt::format(
           "the model {} does not exist; this server has '{}'{}", shown(*name), model.name,
           model.adapters.empty() ? "" : fmt::format(" and its adapters {}", fmt::join(model.adapters, ", "))),
       .param = "model",
       .code = "model_not_found"});
  return -1;
}

void add_choices(CompletionRequest request, CompletionCall& call) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  for (int64_t choice = 0; choice < call.candidates(); ++choice) {
    call.requests.push_back(request);
    request.sampling.seed += kGolden;
  }
}

CallResult read_body(std::string_view body, const std::function<CallResult(const json&)>& read) {
  // What is nested deeply would be walked recursively later on.
  auto bounded = [](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth)
      throw std::invalid_argument(fmt::format("it is nested deeper than {} levels", kMaxDepth));
    return true;
  };
  try {
    json parsed = json::parse(body, bounded);
    if (!parsed.is_object()) return ApiError{.message = "the body must be a JSON object"};
    return read(parsed);
  } catch (const json::parse_error& failure) {
    std::string text = failure.what();
    return ApiError{.message = "the body is no valid JSON: " + text.substr(text.find("] ") + 2)};
  } catch (const std::exception& failure) {
    return ApiError{.message = fmt::format("cannot read the body: {}", failure.what())};
  }
}

}  // namespace tessera::serve
