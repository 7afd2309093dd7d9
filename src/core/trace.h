// A timeline in Chrome's trace format, which chrome://tracing and Perfetto open: one row per thread of each
// process. A rank is a process; its computation and its communication are threads.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tessera {

struct TraceEvent {
  std::string name;                     // of what was done; equal names get equal colours
  int64_t process = 0, thread = 0;      // rank, row
  double begin_s = 0, end_s = 0;        // since the start of the traced window
  std::map<std::string, int64_t> args;  // shown when the event is selected: step, slot
};

// The JSON text. Rows are named "rank 3" and by `thread_names`, from row 0.
std::string chrome_trace(std::span<const TraceEvent> events, std::span<const std::string_view> thread_names);

}  // namespace tessera
