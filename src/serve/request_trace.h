// What became of the last requests, as a timeline in Chrome's trace format (chrome://tracing, Perfetto): one
// row of the engine with its steps, and a row for each request with its wait, the chunks of its prompt and its
// answer below a span `llm_request`, whose attributes have the names of OpenTelemetry's spans of vLLM. A ring
// of bounded size; recording costs a few stores. Threads: any.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "core/clock.h"
#include "serve/metrics.h"

namespace tessera::serve {

class RequestTrace {
 public:
  explicit RequestTrace(size_t capacity = 1 << 16) : capacity_(capacity) {}

  struct Event {
    const char* name;     // "step", "queue", "prefill", "decode", ...
    int64_t request = 0;  // its number in the engine; 0: the engine's own row
    Clock::time_point begin, end;
    int64_t tokens = 0;
    std::optional<RequestSummary> whole = {};  // of llm_request
  };
  void add(Event event);

  // The events that ended within the last `seconds`, with times since the first of them.
  std::string chrome_json(double seconds) const;

 private:
  size_t capacity_;
  mutable std::mutex mutex_;
  std::deque<Event> events_;
};

}  // namespace tessera::serve
