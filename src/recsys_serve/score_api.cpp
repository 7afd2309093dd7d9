#include "recsys_serve/score_api.h"

#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "recsys_serve/kserve.h"

namespace tessera::recsys_serve {

using nlohmann::json;

namespace {

constexpr const char* kNotReady = "no version of the model has been exported yet";

HttpError http_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
      return {.status = 400, .message = error.message};
    case ErrorCode::not_found:
      return {.status = 404, .message = error.message};
    case ErrorCode::unavailable:
      return {.status = 503, .message = error.message, .type = "service_unavailable_error"};
    default:
      return {.status = 500, .message = error.message, .type = "internal_server_error"};
  }
}

std::vector<double> latency_bounds() {
  return {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5};
}

bool is_kserve(const std::string& path) {
  return path == "/v2" || path.starts_with("/v2/");
}

}  // namespace

ScoreApi::ScoreApi(const ServedModel& model, HttpServer& server, ScoreApiOptions options)
    : model_(model), server_(server), options_(std::move(options)), latency_(latency_bounds()) {
  for (int64_t i = 0; i < std::max<int64_t>(1, options_.workers); ++i) crew_.emplace_back([this] { work(); });
}

ScoreApi::~ScoreApi() {
  {
    std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : crew_) thread.join();
}

// ---- routes ----

bool ScoreApi::scores(const HttpRequest& request) const {
  return request.path == "/v1/score" || of_model(request.path) == "/infer";
}

void ScoreApi::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  const char* allowed = scores(request) ? "POST" : "GET";
  if (request.method != allowed) {
    HttpResponse refusal = error_response(
        {.status = 405,
         .message = fmt::format("{} does not take {}; use {}", request.path, request.method, allowed)},
        request);
    refusal.headers.emplace_back("Allow", allowed);
    return exchange->respond(refusal);
  }
  if (scores(request)) return enqueue(std::move(exchange));
  auto response = is_kserve(request.path) ? get_kserve(request.path) : get(request.path);
  exchange->respond(response.ok() ? *response : error_response(http_error(response.error()), request));
}

Result<HttpResponse> ScoreApi::get(const std::string& path) const {
  if (path == "/health") return HttpResponse{.body = R"({"status":"ok"})"};
  if (path == "/metrics")
    return HttpResponse{.body = metrics(), .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  if (path == "/v1/model") return describe();
  if (path != "/health/ready") return make_error(ErrorCode::not_found, "there is no {}", path);
  if (!model_.model()) return make_error(ErrorCode::unavailable, kNotReady);
  return HttpResponse{.body = R"({"status":"ready"})"};
}

std::optional<std::string> ScoreApi::of_model(const std::string& path) const {
  std::string rest = path;
  const std::string version = fmt::format("/versions/{}", model_.standing().version);
  auto pass = [&rest](const std::string& head) {
    if (rest != head && !rest.starts_with(head + "/")) return false;
    rest.erase(0, head.size());
    return true;
  };
  if (!pass("/v2/models/" + options_.name)) return std::nullopt;
  pass(version);
  return rest;
}

Result<HttpResponse> ScoreApi::get_kserve(const std::string& path) const {
  if (path == "/v2") return HttpResponse{.body = server_metadata(options_.version)};
  if (path == "/v2/health/live") return HttpResponse{.body = R"({"live":true})"};
  auto rest = of_model(path);
  const bool asks_ready = path == "/v2/health/ready" || rest == "/ready";
  if (!asks_ready && rest != "")
    return make_error(ErrorCode::not_found, "there is no {}; the model is called '{}'", path, options_.name);
  auto model = model_.model();
  if (!model) return make_error(ErrorCode::unavailable, kNotReady);
  if (asks_ready) return HttpResponse{.body = R"({"ready":true})"};
  return HttpResponse{.body = model_metadata(options_.name, model_.standing().version, model->features)};
}

Result<HttpResponse> ScoreApi::describe() const {
  auto model = model_.model();
  Standing now = model_.standing();
  if (!model) return make_error(ErrorCode::unavailable, kNotReady);
  json out = json::parse(recsys_train::to_text(*model));
  out.erase("format");
  out["version"] = now.version;
  out["step"] = now.step;
  out["exported_at"] = now.time;
  out["applied_at"] = now.applied_at;
  out["rows"] = now.rows;
  out["bytes"] = now.bytes;
  out["problem"] = now.problem.empty() ? json() : json(now.problem);
  return HttpResponse{.body = out.dump(-1, ' ', false, json::error_handler_t::replace)};
}

std::string ScoreApi::metrics() const {
  Standing now = model_.standing();
  PrometheusText text;
  auto gauge = [&](const char* name, const char* help, double value) { text.gauge(name, help, {}, value); };
  auto counter = [&](const char* name, const char* help, double value) { text.counter(name, help, {}, value); };
  gauge("tessera_recsys_ready", "1 once a version is served.", now.ready ? 1 : 0);
  gauge("tessera_recsys_version", "Version that is served.", static_cast<double>(now.version));
  gauge("tessera_recsys_step", "Training step of its dense weights.", static_cast<double>(now.step));
  counter("tessera_recsys_versions_applied_total", "Versions taken up since the start.",
          static_cast<double>(now.versions));
  gauge("tessera_recsys_age_seconds", "Since the version that is served was cut.",
        now.ready ? unix_time() - now.time : 0);
  gauge("tessera_recsys_apply_delay_seconds", "From the cut of the last version to when it was served.",
        now.ready ? now.applied_at - now.time : 0);
  gauge("tessera_recsys_stale", "1 while the newest version cannot be taken up.", now.problem.empty() ? 0 : 1);
  gauge("tessera_recsys_rows", "Resident embedding rows.", static_cast<double>(now.rows));
  gauge("tessera_recsys_row_bytes", "Their memory.", static_cast<double>(now.bytes));
  std::lock_guard lock(mutex_);
  gauge("tessera_recsys_requests_waiting", "Requests in the queue.", static_cast<double>(waiting_.size()));
  counter("tessera_recsys_rows_scored_total", "Rows that were scored.", static_cast<double>(rows_));
  for (const auto& [status, count] : answered_)
    text.counter("tessera_recsys_requests_total", "Requests for scores, by HTTP status.",
                 {{"status", fmt::format("{}", status)}}, static_cast<double>(count));
  text.histogram("tessera_recsys_request_seconds", "From arrival to the answer.", {{"api", "score"}}, latency_);
  return text.text();
}

// ---- scores ----

void ScoreApi::enqueue(std::shared_ptr<HttpExchange> exchange) {
  {
    std::lock_guard lock(mutex_);
    if (static_cast<int64_t>(waiting_.size()) < options_.max_waiting) {
      waiting_.push_back({std::move(exchange), Clock::now()});
      changed_.notify_one();
      return;
    }
    ++answered_[429];
  }
  HttpError full{.status = 429,
                 .message = fmt::format("{} requests wait already; come back later", options_.max_waiting),
                 .type = "rate_limit_error",
                 .code = "queue_full"};
  exchange->respond(error_response(full, exchange->request()));
}

void ScoreApi::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !waiting_.empty() || ends_; });
    if (waiting_.empty()) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    Answer done = answer(job.exchange->request());
    count(done, seconds_since(job.arrived));
    // An exchange belongs to the server's thread, its end too.
    server_.post([exchange = std::move(job.exchange), response = std::move(done.response)] {
      exchange->respond(response);
    });
    lock.lock();
  }
}

void ScoreApi::count(const Answer& answer, double seconds) {
  std::lock_guard lock(mutex_);
  ++answered_[answer.response.status];
  rows_ += answer.rows;
  latency_.observe(seconds);
}

ScoreApi::Answer ScoreApi::answer(const HttpRequest& request) const {
  auto model = model_.model();
  if (!model) return {error_response(http_error(make_error(ErrorCode::unavailable, kNotReady)), request)};
  return is_kserve(request.path) ? infer(request, *model) : score(request, *model);
}

ScoreApi::Answer ScoreApi::score(const HttpRequest& request, const recsys_train::ExportedModel& model) const {
  auto parsed = parse_score_request(request.body, model.features, options_.max_rows);
  if (const auto* error = std::get_if<HttpError>(&parsed)) return {error_response(*error, request)};
  auto scores = model_.score(std::get<recsys_data::Batch>(parsed));
  if (!scores) return {error_response(http_error(scores.error()), request)};
  json values = json::array();
  for (float logit : scores->logits) values.push_back(probability_of(logit));
  json out = {{"scores", std::move(values)},
              {"version", scores->version},
              {"step", scores->step},
              {"age_s", unix_time() - scores->time}};
  return {{.body = out.dump()}, static_cast<int64_t>(scores->logits.size())};
}

ScoreApi::Answer ScoreApi::infer(const HttpRequest& request, const recsys_train::ExportedModel& model) const {
  auto parsed = parse_infer_request(request.body, model.features, options_.max_rows);
  if (const auto* error = std::get_if<HttpError>(&parsed)) return {error_response(*error, request)};
  const auto& asked = std::get<InferRequest>(parsed);
  auto scores = model_.score(asked.batch);
  if (!scores) return {error_response(http_error(scores.error()), request)};
  return {{.body = infer_response(asked, *scores, options_.name)}, asked.batch.rows};
}

}  // namespace tessera::recsys_serve
