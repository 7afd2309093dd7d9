#include "resilience/event.h"

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/file.h"

namespace tessera::resilience {
namespace {

template <class T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

}  // namespace

std::string to_json(const Event& event) {
  nlohmann::ordered_json object;
  object["time"] = event.time;
  object["generation"] = event.generation;
  object["event"] = event.event;
  object["detail"] = event.detail;
  object["worker"] = or_null(event.worker);
  object["rank"] = or_null(event.rank);
  object["step"] = or_null(event.step);
  object["detect_s"] = or_null(event.detect_s);
  object["source"] = or_null(event.source);
  object["resume_s"] = or_null(event.resume_s);
  object["steps_redone"] = or_null(event.steps_redone);
  object["layout"] = or_null(event.layout);
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string to_line(const Event& event) {
  return fmt::format("generation {}: {}", event.generation, event.detail);
}

Status append(const Event& event, const std::filesystem::path& file) {
  std::error_code failure;
  std::filesystem::create_directories(file.parent_path(), failure);
  std::ofstream stream(file, std::ios::app);
  stream << to_json(event) << '\n' << std::flush;
  if (!stream) return system_error("append to", file, errno);
  return {};
}

}  // namespace tessera::resilience
