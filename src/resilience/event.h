// What happened to a job, for people (one line) and for programs (RUN_DIR/events.jsonl, one JSON object a
// line).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/result.h"

namespace tessera::resilience {

struct Event {
  double time = 0;  // seconds since 1970
  int64_t generation = 0;
  std::string event;   // "started", "lost", "formed", "resumed", "finished", "stopped", "failed"
  std::string detail;  // for people: who, why, where
  // Present where they mean something, null in JSON otherwise.
  std::optional<int64_t> worker, rank;  // of a loss
  std::optional<int64_t> step;          // last one completed, or the one to go on with
  std::optional<double> detect_s;       // from the fault, or from the last sign of life, to the notice
  std::optional<std::string> source;    // of the state: "fresh", "memory", "disk"
  std::optional<double> resume_s;       // from the notice to the end of the first step done again
  std::optional<int64_t> steps_redone;
  std::optional<std::string> layout;
};

std::string to_json(const Event& event);
// "generation 2: worker 2 (rank 2) killed by signal 9 (Killed), noticed after 0.01 s"
std::string to_line(const Event& event);
// Appends and flushes. The folder is made when it is not there.
Status append(const Event& event, const std::filesystem::path& file);

}  // namespace tessera::resilience
