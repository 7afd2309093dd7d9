#include "serve/embedding_api.h"

#include <openssl/evp.h>

#include <bit>
#include <ctime>
#include <nlohmann/json.hpp>

#include "http/gate.h"
#include "serve/attribution.h"
#include "serve/openai_fields.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

constexpr size_t kMostInputs = 2048;  // of one call, as at OpenAI

std::string in_base64(const std::vector<float>& values) {
  static_assert(std::endian::native == std::endian::little, "the bytes go out as they lie in memory");
  const size_t bytes = values.size() * sizeof(float);
  std::string out((bytes + 2) / 3 * 4 + 1, '\0');  // it ends what it writes with a zero
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(values.data()), static_cast<int>(bytes));
  out.resize(static_cast<size_t>(length));
  return out;
}

bool is_list_of_ids(const json& value) {
  auto is_id = [](const json& id) { return id.is_number_unsigned() && id.get<uint64_t>() <= INT32_MAX; };
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), is_id);
}

std::vector<std::vector<int64_t>> read_inputs(Fields& fields, const data::Tokenizer& tokenizer) {
  const json* input = fields.find("input");
  std::vector<std::vector<int64_t>> sequences;
  auto add_text = [&](const json& text) {
    sequences.push_back(tokenizer.encode(text.get<std::string>(), {.add_special_tokens = true}));
    if (text.get<std::string>().empty()) fields.refuse("input", "an input is an empty text");
  };
  if (!input) {
    fields.refuse("input", "'input' is missing");
  } else if (input->is_array() && input->size() > kMostInputs && !is_list_of_ids(*input)) {
    fields.refuse("input", fmt::format("'input' has {} texts, more than {}", input->size(), kMostInputs));
  } else if (input->is_string()) {
    add_text(*input);
  } else if (is_list_of_texts(*input)) {
    for (const json& text : *input) add_text(text);
  } else if (is_list_of_ids(*input)) {
    sequences.push_back(input->get<std::vector<int64_t>>());
  } else if (input->is_array() && !input->empty() &&
             std::all_of(input->begin(), input->end(), is_list_of_ids)) {
    sequences = input->get<std::vector<std::vector<int64_t>>>();
  } else {
    fields.refuse(
        "input",
        "'input' must be a string, a list of strings, a list of token ids, or a list of lists of token "
        "ids, and not empty");
  }
  return sequences;
}

std::variant<EmbeddingCall, ApiError> read_embedding_call(const json& body, const data::Tokenizer& tokenizer,
                                                          const ServedName& model) {
  Fields fields(body);
  EmbeddingCall call;
  check_model(fields, model);
  call.sequences = read_inputs(fields, tokenizer);
  const std::string format = fields.text("encoding_format", "float");
  if (format != "float" && format != "base64")
    fields.refuse("encoding_format",
                  fmt::format("'encoding_format' must be float or base64, not '{}'", format));
  call.base64 = format == "base64";
  call.dimensions = fields.integer("dimensions", 1, 1 << 20).value_or(0);
  call.user = fields.text("user", "");
  fields.refuse_unknown();
  if (fields.error()) return *fields.error();
  return call;
}

json answer_of(const std::vector<std::vector<float>>& vectors, bool base64, int64_t tokens,
               const std::string& name) {
  json data = json::array();
  for (size_t i = 0; i < vectors.size(); ++i) {
    json entry = {{"object", "embedding"}, {"index", i}};
    if (base64)
      entry["embedding"] = in_base64(vectors[i]);
    else
      entry["embedding"] = vectors[i];
    data.push_back(std::move(entry));
  }
  return {{"object", "list"},
          {"data", std::move(data)},
          {"model", name},
          {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
}

std::string text_of_json(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void refuse(HttpExchange& exchange, const ApiError& error) {
  HttpHeaders headers;
  if (error.status == 429 || error.status == 503)
    headers.emplace_back("Retry-After", retry_after(error.retry_after_s.value_or(1)));
  exchange.respond({.status = error.status, .body = error.body(exchange.request().id), .headers = headers});
}

}  // namespace

int64_t EmbeddingCall::tokens() const {
  int64_t sum = 0;
  for (const auto& sequence : sequences) sum += std::ssize(sequence);
  return sum;
}

std::variant<EmbeddingCall, ApiError> parse_embedding_call(std::string_view body,
                                                           const data::Tokenizer& tokenizer,
                                                           const ServedName& model) {
  std::variant<EmbeddingCall, ApiError> out = EmbeddingCall();
  auto result = read_body(body, [&](const json& parsed) -> CallResult {
    out = read_embedding_call(parsed, tokenizer, model);
    return CompletionCall();
  });
  if (auto* error = std::get_if<ApiError>(&result)) return std::move(*error);
  return out;
}

EmbeddingApi::EmbeddingApi(EmbeddingEngine& engine, HttpServer& server, data::TokenizerPtr tokenizer,
                           std::string name)
    : engine_(engine),
      server_(server),
      tokenizer_(std::move(tokenizer)),
      model_{.name = std::move(name), .max_length = engine.max_length()},
      created_(std::time(nullptr)) {}

void EmbeddingApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  const bool embeds = request.path == "/v1/embeddings";
  const char* allowed = embeds ? "POST" : "GET";
  if (request.method == allowed) {
    if (embeds) return embed(std::move(exchange));
    return exchange->respond(get(request));
  }
  ApiError error{.status = 405,
                 .message = fmt::format("{} does not take {}; use {}", request.path, request.method, allowed)};
  exchange->respond({.status = error.status, .body = error.body(request.id), .headers = {{"Allow", allowed}}});
}

HttpResponse EmbeddingApi::get(const HttpRequest& request) const {
  const std::string models = "/v1/models", &path = request.path;
  if (path == "/health") return {.body = R"({"status":"ok"})"};
  if (path == "/metrics")
    return {.body = metrics(), .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  if (path == models) return {.body = fmt::format(R"({{"object":"list","data":[{}]}})", model_json())};
  if (path == models + "/" + model_.name) return {.body = model_json()};
  ApiError error{.status = 404, .message = fmt::format("there is no {}; this server makes embeddings", path)};
  if (path.starts_with(models + "/")) error.code = "model_not_found";
  return {.status = error.status, .body = error.body(request.id)};
}

std::string EmbeddingApi::model_json() const {
  return text_of_json({{"id", model_.name},
                       {"object", "model"},
                       {"created", created_},
                       {"owned_by", "tessera"},
                       {"max_model_len", model_.max_length}});
}

std::string EmbeddingApi::metrics() const {
  const EmbeddingGauges gauges = engine_.gauges();
  std::string out;
  auto add = [&](const char* name, const char* type, const char* help, int64_t value) {
    out += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n{0} {3}\n", name, type, help, value);
  };
  add("tessera:embedding_sequences_waiting", "gauge", "Sequences that wait.", gauges.waiting);
  add("tessera:embedding_calls_total", "counter", "Calls taken.", gauges.calls);
  add("tessera:embedding_sequences_total", "counter", "Sequences computed.", gauges.sequences);
  add("tessera:embedding_tokens_total", "counter", "Tokens computed.", gauges.tokens);
  add("tessera:embedding_steps_total", "counter", "Steps computed.", gauges.steps);
  return out;
}

void EmbeddingApi::embed(std::shared_ptr<HttpExchange> exchange) {
  auto parsed = parse_embedding_call(exchange->request().body, *tokenizer_, model_);
  if (const auto* error = std::get_if<ApiError>(&parsed)) return refuse(*exchange, *error);
  auto& call = std::get<EmbeddingCall>(parsed);
  // Keys and quotas are those of completions: prompts without answers.
  CompletionCall claimed;
  for (const auto& sequence : call.sequences) claimed.requests.push_back({.prompt = sequence, .max_tokens = 0});
  if (auto error = attribute(exchange->request(), model_.name, claimed)) return refuse(*exchange, *error);

  auto left = std::make_shared<bool>(false);  // touched on the server's thread only
  const int64_t tokens = call.tokens();
  // The engine may outlive this.
  auto answer = [&server = server_, name = model_.name, exchange, left, tokens, base64 = call.base64,
                 claim = claimed.claim](Result<std::vector<std::vector<float>>> vectors) {
    if (claim) claim->settle(vectors ? tokens : 0);
    auto body = vectors ? text_of_json(answer_of(*vectors, base64, tokens, name)) : std::string();
    server.post([exchange, left, body = std::move(body),
                 error = vectors ? std::nullopt : std::optional(to_api_error(vectors.error()))] {
      if (*left) return;
      exchange->on_disconnect = nullptr;
      if (error) return refuse(*exchange, *error);
      exchange->respond({.body = body});
    });
  };
  auto id = engine_.submit(
      {.sequences = std::move(call.sequences), .dimensions = call.dimensions, .done = std::move(answer)});
  if (!id) return refuse(*exchange, to_api_error(id.error()));
  exchange->on_disconnect = [this, left, id = *id] {
    *left = true;
    engine_.cancel(id);
  };
}

}  // namespace tessera::serve
