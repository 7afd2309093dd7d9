// Which server owns an id. Ids fall into a fixed number of slots, and slots are dealt out to servers: when
// there is one server more, each of the others gives it an equal share of its slots and nothing else moves; one
// server less gives exactly those back. So the owner is a function of the id and of the number of servers
// alone: nobody has to remember a table, and from N to N + 1 servers 1 / (N + 1) of all ids moves.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera::recsys {

class SlotMap {
 public:
  static constexpr uint32_t kSlots = 1 << 14;  // also the most servers

  // REQUIRES: 1 <= num_servers <= kSlots.
  explicit SlotMap(uint32_t num_servers);

  uint32_t num_servers() const { return num_servers_; }
  uint32_t server_of(uint64_t id) const { return servers_[slot_of(id)]; }
  static uint32_t slot_of(uint64_t id);
  const std::vector<uint16_t>& servers() const { return servers_; }  // of each slot

 private:
  uint32_t num_servers_;
  std::vector<uint16_t> servers_;
};

// That of so many servers; it is made once and lives on.
const SlotMap& slot_map(uint32_t num_servers);

// The server that owns an id when `num_servers` share a group. Independent of the hash inside a store.
inline uint32_t server_of(uint64_t id, uint32_t num_servers) {
  return slot_map(num_servers).server_of(id);
}

}  // namespace tessera::recsys
