// Under what a term of a search is found again: the fields of a layout that decide it. Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "plan/training/setup.h"

namespace tessera::plan {

struct TermKey {
  std::array<int64_t, 10> fields{};
  std::vector<int64_t> stage_layers;
  bool operator==(const TermKey&) const = default;
};
struct TermHash {
  size_t operator()(const TermKey& key) const;
};

// Adds a value to a running hash.
inline void mix(uint64_t& hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
  hash ^= hash >> 29;
}

// What layers of a micro-batch depend on. `recomputed`: the share of layers recomputed in full, where it
// decides.
TermKey layers_key(const TrainingLayout& layout, double recomputed);
// The same for layers that compute nothing again.
TermKey kept_layers_key(const TrainingLayout& layout);

}  // namespace tessera::plan
