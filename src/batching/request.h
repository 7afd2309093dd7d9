// A request as the policy sees it: counts of tokens, and their values only to find equal beginnings.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "batching/kv_cache.h"

namespace tessera::batching {

using RequestId = int64_t;

constexpr double kNever = std::numeric_limits<double>::infinity();

struct Submission {
  RequestId id = 0;
  int64_t prompt_tokens = 0, max_length = 0;  // max_length: prompt and answer
  // The prompt's values. Empty: its blocks are neither found by others nor taken from them.
  std::vector<int64_t> tokens;
  bool reuse = true;     // may begin with blocks that others computed; false when all rows are wanted
  std::string salt;      // blocks are shared between equal salts only
  int64_t priority = 0;  // lower values first
  std::string tenant;    // who shares the server fairly with whom
  // Tokens of the prompt, in whole blocks and not all, whose keys and values the caller has from elsewhere.
  int64_t brought_tokens = 0;
  double start_by = kNever;  // on the caller's clock, seconds: waits no longer than this
  double end_by = kNever;    // and has ended by then
};

struct Request {
  Submission asked;
  int64_t arrival = 0;  // order of submit()
  int64_t length = 0, computed = 0;
  int64_t drafts = 0;    // guesses that the next step may check
  int64_t checking = 0;  // guesses of the step under way
  int64_t charged = 0;   // tokens that its tenant has paid for
  int64_t reused = 0;    // tokens that came from the cache when it first ran
  bool has_run = false;
  KvOwned kv;

  int64_t missing() const { return length - computed; }
  bool knows_tokens() const { return !asked.tokens.empty(); }
  // Order of running and of yielding.
  bool before(const Request& other) const {
    if (asked.priority != other.asked.priority) return asked.priority < other.asked.priority;
    return arrival < other.arrival;
  }
};

}  // namespace tessera::batching
