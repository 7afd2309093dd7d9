#include "serve/probes.h"

#include "http/error_body.h"

namespace tessera::serve {

HttpResponse Probes::answer(const HttpRequest& request) const {
  if (request.method != "GET") return wrong_method(request, "GET");
  std::optional<std::string> fault;
  if (request.path == "/health" || request.path == "/health/ready")
    fault = not_ready();
  else if (request.path == "/health/live")
    fault = not_live();
  else if (request.path == "/health/startup")
    fault = not_started();
  else
    return error_response({.status = 404, .message = fmt::format("there is no {}", request.path)}, request);
  if (!fault) return {.body = R"({"status":"ok"})"};
  return error_response({.status = 503, .message = *fault, .type = "service_unavailable_error"}, request);
}

std::optional<std::string> Probes::not_live() const {
  for (const auto& entry : models_.entries()) {
    if (!entry.model) continue;
    EngineHealth health = entry.model->engine->health();
    if (!health.alive) return fmt::format("{}: {}", entry.name, health.reason);
    if (health.step_s > stuck_s_)
      return fmt::format(
          "{}: a step has been running for {:.1f} s, longer than the {:.3g} s after which it is taken "
          "for stuck",
          entry.name, health.step_s, stuck_s_);
  }
  return std::nullopt;
}

std::optional<std::string> Probes::not_started() const {
  if (models_.all_tried()) return std::nullopt;
  return "models are loading";
}

std::optional<std::string> Probes::not_ready() const {
  if (server_.draining()) return "the server is shutting down";
  if (auto fault = not_live()) return fault;
  for (const auto& entry : models_.entries()) {
    if (!entry.wanted) continue;
    if (!entry.model)
      return fmt::format("{}: {}", entry.name,
                         entry.state == ModelDirectory::State::loading ? "loading" : entry.reason);
    EngineHealth health = entry.model->engine->health();
    if (!health.ready) return fmt::format("{}: {}", entry.name, health.reason);
  }
  return std::nullopt;
}

}  // namespace tessera::serve
