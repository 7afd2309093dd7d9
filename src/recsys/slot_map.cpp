#include "recsys/slot_map.h"

#include <map>
#include <memory>
#include <mutex>

#include "core/result.h"
#include "recsys/hash.h"

namespace tessera::recsys {

SlotMap::SlotMap(uint32_t num_servers) : num_servers_(num_servers), servers_(kSlots, 0) {
  TESSERA_REQUIRE(num_servers >= 1 && num_servers <= kSlots, "{} servers for {} slots", num_servers, kSlots);
  std::vector<uint32_t> owned(num_servers, 0), spare(num_servers, 0);
  owned[0] = kSlots;
  for (uint32_t added = 1; added < num_servers; ++added) {
    const uint32_t servers = added + 1;
    for (uint32_t old = 0; old < added; ++old)
      spare[old] = owned[old] - (kSlots / servers + (old < kSlots % servers ? 1 : 0));
    // Slots are hashes, so the first ones are as good as any.
    for (uint16_t& server : servers_) {
      if (server >= added || spare[server] == 0) continue;
      --spare[server];
      --owned[server];
      ++owned[added];
      server = static_cast<uint16_t>(added);
    }
  }
}

uint32_t SlotMap::slot_of(uint64_t id) {
  constexpr uint64_t kServerSeed =
      0x5e7de6a1c0ffee11;  // any constant: ids of one server must spread over its shards
  return static_cast<uint32_t>(below(mix64(id ^ kServerSeed), kSlots));
}

const SlotMap& slot_map(uint32_t num_servers) {
  static std::mutex mutex;
  static std::map<uint32_t, std::unique_ptr<const SlotMap>> maps;
  std::lock_guard lock(mutex);
  auto& map = maps[num_servers];
  if (!map) map = std::make_unique<const SlotMap>(num_servers);
  return *map;
}

}  // namespace tessera::recsys
