#include "kserve/rest.h"

#include "http/error_body.h"
#include "kserve/rest_codec.h"
#include "kserve/rest_sink.h"

namespace tessera::kserve {

using nlohmann::json;

namespace {

constexpr size_t kMaxIndexBody = 4096;
constexpr std::string_view kModels = "/v2/models/", kRepository = "/v2/repository/models/";

HttpResponse plain(bool good) {
  return {.status = good ? 200 : 503, .body = ""};
}

HttpResponse failed(const Error& error) {
  return {.status = status_of(error), .body = kserve_error_body(error.message)};
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string decode_percent(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    bool coded = text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += coded ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])) : text[i];
    if (coded) i += 2;
  }
  return out;
}

}  // namespace

int status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
      return 400;
    case ErrorCode::not_found:
      return 404;
    case ErrorCode::resource_exhausted:
      return 429;
    case ErrorCode::deadline_exceeded:
      return 504;
    case ErrorCode::unavailable:
      return 503;
    default:
      return 500;
  }
}

// NAME[/versions/V][/ACTION] behind /v2/models/.
Result<Rest::ModelPath> Rest::model_path(const std::string& path) const {
  std::string_view rest = std::string_view(path).substr(kModels.size());
  size_t slash = rest.find('/');
  ModelPath out{.name = decode_percent(rest.substr(0, slash)), .action = ""};
  rest = slash == rest.npos ? "" : rest.substr(slash + 1);
  constexpr std::string_view kVersions = "versions/";
  if (rest.starts_with(kVersions)) {
    rest.remove_prefix(kVersions.size());
    slash = rest.find('/');
    if (rest.substr(0, slash) != kOnlyVersion)
      return make_error(ErrorCode::not_found, "model '{}' has version {} only", out.name, kOnlyVersion);
    rest = slash == rest.npos ? "" : rest.substr(slash + 1);
  }
  out.action = rest;
  return out;
}

void Rest::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  if (request.method == "POST" && request.path.starts_with(kRepository))
    return change_repository(std::move(exchange));
  if (request.method == "POST" && request.path.starts_with(kModels)) {
    auto path = model_path(request.path);
    if (!path) return exchange->respond(failed(path.error()));
    const std::string& action = path->action;
    if (action == "infer" || action == "generate" || action == "generate_stream")
      return infer(std::move(exchange), *path);
  }
  auto response = answer(request);
  exchange->respond(response ? *response : failed(response.error()));
}

Result<HttpResponse> Rest::answer(const HttpRequest& request) const {
  const std::string& path = request.path;
  if (request.method == "POST" && path == "/v2/repository/index") {
    if (request.body.size() > kMaxIndexBody)
      return invalid("a body of {} bytes; it may be {{\"ready\": true}} and no more", request.body.size());
    json body = json::parse(request.body, nullptr, false);
    bool only_ready = body.is_object() && body.value("ready", json()) == json(true);
    return HttpResponse{.body = dump(index_json(backend_.models(), only_ready))};
  }
  if (request.method != "GET")
    return make_error(ErrorCode::not_found, "there is no {} {}", request.method, path);
  if (path == "/v2/health/live") return plain(backend_.live());
  if (path == "/v2/health/ready") return plain(backend_.ready());
  if (path == "/v2")
    return HttpResponse{.body =
                            dump({{"name", kServerName}, {"version", version_}, {"extensions", extensions()}})};
  if (path == "/v2/models/stats") {
    std::vector<ModelStatistics> all;
    for (const ModelState& model : backend_.models())
      if (auto one = backend_.statistics(model.name)) all.push_back(*one);
    return HttpResponse{.body = dump(statistics_json(all))};
  }
  if (path.starts_with(kModels)) return about_model(request);
  return make_error(ErrorCode::not_found, "there is no {}", path);
}

Result<HttpResponse> Rest::about_model(const HttpRequest& request) const {
  TESSERA_ASSIGN_OR_RETURN(ModelPath path, model_path(request.path));
  if (path.action == "ready") return plain(backend_.model_ready(path.name));
  if (path.action == "stats") {
    TESSERA_ASSIGN_OR_RETURN(auto statistics, backend_.statistics(path.name));
    return HttpResponse{.body = dump(statistics_json({statistics}))};
  }
  if (!path.action.empty() && path.action != "config")
    return make_error(ErrorCode::not_found, "there is no GET {}", request.path);
  TESSERA_ASSIGN_OR_RETURN(auto metadata, backend_.metadata(path.name));
  return HttpResponse{.body = dump(path.action.empty() ? metadata_json(metadata) : config_json(metadata))};
}

void Rest::infer(std::shared_ptr<HttpExchange> exchange, const ModelPath& path) {
  auto metadata = backend_.metadata(path.name);
  if (!metadata) return exchange->respond(failed(metadata.error()));
  auto left = std::make_shared<bool>(false);  // touched on the server's thread only
  exchange->on_disconnect = [left] { *left = true; };
  auto request = std::make_shared<Result<InferRequest>>(InferRequest());
  auto read = [exchange, request, metadata = *metadata, generate = path.action != "infer"] {
    *request = generate ? read_generate(exchange->request(), metadata) : read_infer(exchange->request());
  };
  apart_(read, [this, exchange, request, left, path] {
    if (*left) return;
    exchange->on_disconnect = nullptr;
    start(exchange, path, std::move(*request));
  });
}

void Rest::start(std::shared_ptr<HttpExchange> exchange, const ModelPath& path, Result<InferRequest> request) {
  if (!request) return exchange->respond(failed(request.error()));
  request->model = path.name;
  bool stream = path.action == "generate_stream";
  auto sink = RestSink::make(exchange, *request, path.action != "infer", stream);
  sink->on_cancel(backend_.infer(std::move(*request), stream, sink));
}

void Rest::change_repository(std::shared_ptr<HttpExchange> exchange) {
  std::string_view rest = std::string_view(exchange->request().path).substr(kRepository.size());
  size_t slash = rest.rfind('/');
  std::string name = decode_percent(rest.substr(0, slash));
  std::string_view action = slash == rest.npos ? "" : rest.substr(slash + 1);
  auto done = [exchange](const Status& status) {
    exchange->respond(status.ok() ? HttpResponse{.body = ""} : failed(status.error()));
  };
  if (action == "load") return backend_.load(name, done);
  if (action == "unload") return backend_.unload(name, done);
  done(make_error(ErrorCode::not_found, "there is no POST {}", exchange->request().path));
}

}  // namespace tessera::kserve
