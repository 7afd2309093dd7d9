// What travels on a channel: a header that names the operation, then its bytes. A receiver knows which header
// it expects, so calls that do not match are reported and never mixed up.
#pragma once

#include <cstdint>
#include <string>

#include "comm/group.h"

namespace tessera::comm {

enum class Kind : uint16_t {
  send = 1,
  barrier,
  broadcast,
  all_gather,
  all_to_all,
  all_reduce_sum,
  all_reduce_max,
  recv,
  goodbye
};
const char* to_string(Kind kind);

// One operation of a group. `sequence` counts collectives of the group, or the messages of a pair and
// direction.
struct Operation {
  Kind kind = Kind::barrier;
  uint64_t sequence = 0;
  uint64_t bytes = 0;  // of the whole operation on this rank, for messages only
};
std::string describe(const Operation& operation);  // "all_gather #812 of 4096 bytes"

struct Header {
  static constexpr uint32_t kMagic = 0x72737354;  // "Tssr"
  uint32_t magic = kMagic;
  Kind kind = Kind::barrier;
  uint16_t step = 0;  // round within the operation
  uint64_t sequence = 0;
  uint64_t bytes = 0;        // that follow this header
  uint64_t total_bytes = 0;  // of the operation on the sender
};
static_assert(sizeof(Header) == 32);

// Whether a header that came is the one expected; `total_bytes` may differ between ranks.
bool matches(const Header& came, const Header& expected);
// "rank 2 runs all_gather #812 of 4096 bytes, but rank 0 runs barrier #812; ..."
Error mismatch(const std::string& peer, const Header& came, const std::string& me, const Header& expected);

}  // namespace tessera::comm
