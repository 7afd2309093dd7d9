#include "core/log.h"

#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

std::mutex name_mutex;
std::string& name() {
  static std::string value;
  return value;
}

LogLevel threshold() {
  static const LogLevel level = [] {
    const char* text = std::getenv("TESSERA_LOG");
    std::string_view wanted = text ? text : "info";
    if (wanted == "debug") return LogLevel::debug;
    if (wanted == "warn") return LogLevel::warn;
    if (wanted == "error") return LogLevel::error;
    return LogLevel::info;
  }();
  return level;
}

bool as_json() {
  static const bool wanted = [] {
    const char* text = std::getenv("TESSERA_LOG_FORMAT");
    return text && std::string_view(text) == "json";
  }();
  return wanted;
}

std::string json_line(const char* level, std::string_view name, std::string_view text, timespec now) {
  nlohmann::json line = {
      {"time", static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec / 1000) * 1e-6},
      {"level", level},
      {"message", text}};
  if (!name.empty()) line["rank"] = name;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

void set_log_name(std::string value) {
  std::lock_guard lock(name_mutex);
  name() = std::move(value);
}

bool log_enabled(LogLevel level) {
  return level >= threshold();
}

void log_line(LogLevel level, std::string_view text) {
  static constexpr const char* kNames[] = {"debug", "info", "warn", "error"};
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  localtime_r(&now.tv_sec, &parts);
  std::string line;
  {
    std::lock_guard lock(name_mutex);
    line = fmt::format("{:02}:{:02}:{:02}.{:03} {}{}{} {}\n", parts.tm_hour, parts.tm_min, parts.tm_sec,
                       now.tv_nsec / 1000000, kNames[static_cast<int>(level)], name().empty() ? "" : " ",
                       name(), text);
    if (as_json()) line = json_line(kNames[static_cast<int>(level)], name(), text, now);
  }
  // One write call, so lines of several processes do not mix.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

}  // namespace tessera
