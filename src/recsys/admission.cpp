#include "recsys/admission.h"

#include <algorithm>
#include <array>

#include "recsys/hash.h"

namespace tessera::recsys {
namespace {

constexpr uint64_t kAdmissionSeed = 0xad3155104ull;
using Kind = AdmissionOptions::Kind;

}  // namespace

Admission::Admission(const AdmissionOptions& options, int64_t num_shards) : options_(options) {
  if (options.kind == Kind::bloom)
    filter_.resize(static_cast<size_t>(std::max<int64_t>(64, options.bloom_counters / num_shards)));
}

bool Admission::admit(uint64_t id, uint64_t step) {
  switch (options_.kind) {
    case Kind::all:
      return true;
    case Kind::probability: {
      uint64_t random = mix64(id ^ mix64(step ^ kAdmissionSeed));
      return static_cast<double>(random >> 11) * 0x1p-53 < options_.probability;
    }
    case Kind::counter:
      return admit_by_count(id);
    case Kind::bloom:
      return admit_by_filter(id);
  }
  return true;
}

bool Admission::admit_by_count(uint64_t id) {
  auto [entry, is_new] = counts_.try_emplace(id, 0);
  if (++entry->second < options_.threshold) return false;
  counts_.erase(entry);
  return true;
}

bool Admission::admit_by_filter(uint64_t id) {
  std::array<uint8_t*, 3> counters;
  uint64_t hash = mix64(id ^ kAdmissionSeed);
  for (uint8_t*& counter : counters) {
    counter = &filter_[below(hash, filter_.size())];
    hash = mix64(hash);
  }
  uint8_t least = 255;
  for (const uint8_t* counter : counters) least = std::min(least, *counter);
  uint32_t count = least + 1u;
  for (uint8_t* counter : counters)
    if (*counter < count && *counter < 255) ++*counter;
  return count >= options_.threshold;
}

int64_t Admission::bytes() const {
  constexpr int64_t kNodeBytes = 48;  // of libstdc++'s map: a node with its allocation, and a bucket
  return static_cast<int64_t>(filter_.size() + counts_.size() * kNodeBytes);
}

}  // namespace tessera::recsys
