#include "recsys/disk_index.h"

#include <algorithm>

#include "core/result.h"

namespace tessera::recsys {

void DiskIndex::put(uint64_t word) {
  size_t place = home(word);
  while (words_[place] != 0) place = next(place);
  words_[place] = word;
}

void DiskIndex::insert(uint64_t hash, uint32_t slot) {
  constexpr double kMostLoad = 0.87;
  if (static_cast<double>(entries_ + 1) > kMostLoad * static_cast<double>(words_.size())) grow();
  put(word_of(hash, slot));
  ++entries_;
}

void DiskIndex::grow() {
  std::vector<uint64_t> old = std::move(words_);
  words_.assign(std::max<size_t>(16, old.size() + old.size() / 4), 0);
  base_.store(words_.data(), std::memory_order_relaxed);
  size_.store(words_.size(), std::memory_order_relaxed);
  for (uint64_t word : old)
    if (word != 0) put(word);
}

size_t DiskIndex::place_of(uint64_t hash, uint32_t slot) const {
  size_t place = home(hash);
  for (uint64_t word = word_of(hash, slot); words_[place] != word; place = next(place))
    TESSERA_REQUIRE(words_[place] != 0, "slot {} is not in the index", slot);
  return place;
}

// Those behind the gap that a search would no longer reach move up into it.
void DiskIndex::remove(uint64_t hash, uint32_t slot) {
  size_t gap = place_of(hash, slot), size = words_.size();
  for (size_t place = next(gap); words_[place] != 0; place = next(place)) {
    size_t from_home = (place + size - home(words_[place])) % size, from_gap = (place + size - gap) % size;
    if (from_home < from_gap) continue;
    words_[gap] = words_[place];
    gap = place;
  }
  words_[gap] = 0;
  --entries_;
}

}  // namespace tessera::recsys
