// Requests for the event simulator: drawn (Poisson arrivals, lengths from a range) or read from a trace.
//
// Traces: Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens; Patel et al. 2024) and Mooncake's JSON lines
// (timestamp in ms, input_length, output_length, hash_ids of 512-token prefix blocks; Qin et al. 2025).
// Threads: functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan::serving {

struct Request {
  double arrival_s = 0;
  int64_t prompt = 1, answer = 1;  // tokens
  int64_t cached = 0;              // leading prompt tokens whose keys and values are there already
};

struct Drawn {
  int64_t requests = 1000;
  double rate = 0;                                   // per second; 0: all at once
  double input_tokens = 1024, output_tokens = 1024;  // largest
  double shortest = 1;                               // share of the largest; lengths are uniform in between
  uint64_t seed = 1;
};
std::vector<Request> draw_requests(const Drawn& drawn);

// By its content. `prefix_tokens`: size of an LRU cache of prefix blocks that requests find their prompts in,
// 0: none. Errors name file and line.
Result<std::vector<Request>> read_trace(const std::string& path, int64_t prefix_tokens = 0);

}  // namespace tessera::plan::serving
