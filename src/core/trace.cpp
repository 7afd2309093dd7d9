#include "core/trace.h"

#include <nlohmann/json.hpp>
#include <set>

namespace tessera {
namespace {

using nlohmann::json;

json name_of(const char* what, int64_t process, int64_t thread, std::string name) {
  return {
      {"ph", "M"}, {"name", what}, {"pid", process}, {"tid", thread}, {"args", {{"name", std::move(name)}}}};
}

json complete_event(const TraceEvent& event) {
  return {{"ph", "X"},           {"name", event.name},        {"pid", event.process},
          {"tid", event.thread}, {"ts", event.begin_s * 1e6}, {"dur", (event.end_s - event.begin_s) * 1e6},
          {"args", event.args}};
}

}  // namespace

std::string chrome_trace(std::span<const TraceEvent> events, std::span<const std::string_view> thread_names) {
  json list = json::array();
  std::set<int64_t> processes;
  for (const TraceEvent& event : events) processes.insert(event.process);
  for (int64_t process : processes) {
    list.push_back(name_of("process_name", process, 0, fmt::format("rank {}", process)));
    for (size_t row = 0; row < thread_names.size(); ++row)
      list.push_back(
          name_of("thread_name", process, static_cast<int64_t>(row), std::string(thread_names[row])));
  }
  for (const TraceEvent& event : events) list.push_back(complete_event(event));
  json trace = {{"displayTimeUnit", "ms"}, {"traceEvents", std::move(list)}};
  return trace.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace tessera
