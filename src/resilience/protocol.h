// What launcher and workers say to each other through the launcher's store. The launcher writes one numbered
// list of orders, which every worker follows with a wait on the server; each worker writes under its own keys.
//
//   order/N        JSON: {"call":G,"reason":R} form generation G | {"plan":{...}} what it is |
//                  {"stop":true} finish the step, save, end | {"end":E} leave; E is "" or an error
//   report/G/W     worker W's Report for generation G
//   beat/W         JSON: {"n":count,"step":S,"operation":O}, overwritten about every 200 ms
//   steps          steps completed by the job; by rank 0 after each step
//   running/G      JSON: {"first_step":S,"source":"memory","layout":L}; by rank 0 after its first step of G
//   done/G/W       JSON of the worker's result, when it has finished all steps
//   fatal/W        text of an error that a new generation would not cure
//   fault/W        seconds (monotonic clock of the host) at which a drill's fault struck W
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/group.h"
#include "resilience/membership.h"

namespace tessera::resilience {

inline constexpr double kBeatInterval = 0.2;  // seconds

struct Order {
  enum Kind { call, plan, stop, end } kind = end;
  int64_t generation = 0;  // of a call
  std::string text;        // reason of a call; error of an end, "" for success
  Plan formed;             // of a plan
};
std::string encode(const Order& order);
Result<Order> decode_order(const std::string& text);

struct Beat {
  int64_t count = 0;
  int64_t step = 0;       // steps completed
  std::string operation;  // under way; "" when computing
};
std::string encode(const Beat& beat);
Result<Beat> decode_beat(const std::string& text);

// What rank 0 says after its first step of a generation.
struct Running {
  int64_t first_step = 0;
  std::string source;  // "fresh", "memory", "disk"
};
std::string encode(const Running& running);
Result<Running> decode_running(const std::string& text);

namespace key {
std::string order(int64_t number);
std::string report(int64_t generation, int64_t worker);
std::string beat(int64_t worker);
inline const std::string steps = "steps";
std::string running(int64_t generation);
std::string done(int64_t generation, int64_t worker);
std::string fatal(int64_t worker);
std::string fault(int64_t worker);
}  // namespace key

// The value if it is there now.
std::optional<std::string> peek(Store& store, const std::string& key);

// Seconds of the host's monotonic clock, equal for all processes of a host.
double monotonic_seconds();

}  // namespace tessera::resilience
