// One line per event on standard error, with time and rank; the level comes from TESSERA_LOG (debug, info,
// warn, error). Libraries log and never print to standard output. Threads: any; a line is written whole.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace tessera {

enum class LogLevel { debug, info, warn, error };

// Name put before each line, such as "rank 3". Set once, by the program.
void set_log_name(std::string name);
void log_line(LogLevel level, std::string_view text);
bool log_enabled(LogLevel level);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace tessera
