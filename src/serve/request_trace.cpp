#include "serve/request_trace.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace tessera::serve {

using nlohmann::json;

namespace {

double microseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

json attributes(const RequestSummary& request) {
  return {{"gen_ai.request.id", request.request_id},
          {"gen_ai.request.max_tokens", request.max_tokens},
          {"gen_ai.usage.prompt_tokens", request.prompt_tokens},
          {"gen_ai.usage.completion_tokens", request.generated_tokens},
          {"gen_ai.response.finish_reasons", json::array({request.reason})},
          {"gen_ai.latency.time_in_queue", request.queue_s},
          {"gen_ai.latency.time_in_model_prefill", request.prefill_s},
          {"gen_ai.latency.time_in_model_decode", request.decode_s},
          {"gen_ai.latency.time_to_first_token", request.queue_s + request.prefill_s},
          {"gen_ai.latency.e2e", request.total_s}};
}

json row_name(int64_t row, const std::string& name) {
  return {{"ph", "M"}, {"pid", 1}, {"tid", row}, {"name", "thread_name"}, {"args", {{"name", name}}}};
}

std::string row_title(const RequestSummary& request) {
  return request.request_id.empty() ? fmt::format("request {}", request.id) : request.request_id;
}

}  // namespace

void RequestTrace::add(Event event) {
  std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
  if (events_.size() > capacity_) events_.pop_front();
}

std::string RequestTrace::chrome_json(double seconds) const {
  std::vector<Event> events;
  {
    std::lock_guard lock(mutex_);
    auto since =
        Clock::now() - std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    for (const Event& event : events_)
      if (event.end >= since) events.push_back(event);
  }
  auto first = Clock::time_point::max();
  for (const Event& event : events) first = std::min(first, event.begin);
  json rows = {{{"ph", "M"}, {"pid", 1}, {"name", "process_name"}, {"args", {{"name", "tessera serve"}}}},
               row_name(0, "engine")};
  for (const Event& event : events) {
    if (event.whole) rows.push_back(row_name(event.request, row_title(*event.whole)));
    rows.push_back({{"ph", "X"},
                    {"pid", 1},
                    {"tid", event.request},
                    {"name", event.name},
                    {"ts", microseconds(event.begin - first)},
                    {"dur", microseconds(event.end - event.begin)},
                    {"args", event.whole ? attributes(*event.whole) : json{{"tokens", event.tokens}}}});
  }
  return json{{"traceEvents", rows}, {"displayTimeUnit", "ms"}}.dump(-1, ' ', false,
                                                                     json::error_handler_t::replace);
}

}  // namespace tessera::serve
