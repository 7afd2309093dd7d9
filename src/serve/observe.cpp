#include "serve/observe.h"

#include <nlohmann/json.hpp>

#include "http/error_body.h"

namespace tessera::serve {

using nlohmann::json;

namespace {

// Its marks replaced by the files that they name, so that the page needs nothing else.
std::string live_page() {
  std::string page(resource("live.html"));
  for (const char* file : {"uPlot.min.css", "live.css", "uPlot.iife.min.js", "live.js"}) {
    std::string mark = fmt::format("/*{}*/", file);
    page.replace(page.find(mark), mark.size(), resource(file));
  }
  return page;
}

// The value of NAME in "a=b&NAME=value"; empty when it is not there.
std::string_view query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('='))
      return pair.substr(name.size() + 1);
  }
  return {};
}

json figures_of(const HostedModel& model) {
  Gauges gauges = model.engine->gauges();
  auto counts = model.engine->metrics().snapshot();
  int64_t ended = 0, failed = 0;
  for (const auto& [reason, count] : counts.finished) {
    ended += count;
    if (reason == "error") failed += count;
  }
  EngineHealth health = model.engine->health();
  return {{"health", health.ready ? "" : health.reason},
          {"running", gauges.running},
          {"waiting", gauges.waiting},
          {"kv_usage", gauges.kv_usage},
          {"prefix_queries", gauges.prefix_queries},
          {"prefix_hits", gauges.prefix_hits},
          {"generated_tokens", counts.generated_tokens},
          {"prompt_tokens", counts.prompt_tokens},
          {"steps", counts.steps},
          {"step_tokens", counts.step_tokens},
          {"preemptions", counts.preemptions},
          {"ended", ended},
          {"failed", failed},
          {"first_token", counts.first_token},
          {"per_token", counts.per_token},
          {"latency", counts.latency}};
}

}  // namespace

bool Observe::serves(const std::string& path) {
  return path == "/metrics" || path == "/live" || path == "/live/data" || path == "/debug/trace";
}

HttpResponse Observe::answer(const HttpRequest& request) const {
  if (request.method != "GET") return wrong_method(request, "GET");
  if (request.path == "/metrics")
    return {.body = metrics(), .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  if (request.path == "/live/data") return {.body = live_data()};
  if (request.path == "/debug/trace") return trace(request);
  static const std::string kPage = live_page();
  return {.body = kPage, .content_type = "text/html; charset=utf-8"};
}

std::string Observe::metrics() const {
  PrometheusText text;
  for (const auto& entry : models_.entries())
    if (entry.model) entry.model->engine->metrics().add_to(text, entry.name, entry.model->engine->gauges());
  add_machine(text);
  return text.text();
}

std::string Observe::live_data() const {
  json models = json::array();
  for (const auto& entry : models_.entries()) {
    json one = {{"name", entry.name}, {"state", to_string(entry.state)}, {"reason", entry.reason}};
    if (entry.model) one.update(figures_of(*entry.model));
    models.push_back(std::move(one));
  }
  double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return json{{"time", now}, {"models", models}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

HttpResponse Observe::trace(const HttpRequest& request) const {
  constexpr double kDefaultSeconds = 60;
  auto asked = query_value(request.query, "seconds"), name = query_value(request.query, "model");
  double seconds = asked.empty() ? kDefaultSeconds : std::atof(std::string(asked).c_str());
  if (!(seconds > 0))
    return error_response({.message = fmt::format("'seconds' must be a number above 0, not '{}'", asked)},
                          request);
  for (const auto& entry : models_.entries())
    if (entry.model && (name.empty() || entry.name == name))
      return {.body = entry.model->engine->trace().chrome_json(seconds)};
  return error_response({.status = 404, .message = fmt::format("no model '{}' is loaded", name)}, request);
}

}  // namespace tessera::serve
