#include "batching/kv_blocks.h"

#include <bit>

#include "core/result.h"

namespace tessera::batching {

BlockPool::BlockPool(int64_t blocks) : references_(static_cast<size_t>(blocks), 0), num_free_(blocks) {
  size_t bits = references_.size();
  do {
    size_t words = (bits + 63) / 64;
    free_.emplace_back(words, ~uint64_t{0});
    if (bits % 64 != 0) free_.back().back() = (uint64_t{1} << bits % 64) - 1;
    bits = words;
  } while (bits > 1);
}

void BlockPool::mark(BlockId block, bool free) {
  auto index = static_cast<size_t>(block);
  for (auto& level : free_) {
    uint64_t& word = level[index / 64];
    uint64_t before = word, bit = uint64_t{1} << index % 64;
    word = free ? word | bit : word & ~bit;
    // Levels above see only whether a word is zero.
    if ((before == 0) == (word == 0)) return;
    index /= 64;
  }
}

std::optional<BlockId> BlockPool::allocate() {
  if (num_free_ == 0) return std::nullopt;
  size_t index = 0;
  for (size_t level = free_.size(); level-- > 0;)
    index = index * 64 + static_cast<size_t>(std::countr_zero(free_[level][index]));
  auto block = static_cast<BlockId>(index);
  mark(block, false);
  --num_free_;
  references_[index] = 1;
  return block;
}

void BlockPool::share(BlockId block) {
  TESSERA_REQUIRE(references(block) > 0, "block {} is free and cannot be shared", block);
  ++references_[static_cast<size_t>(block)];
}

void BlockPool::release(BlockId block) {
  TESSERA_REQUIRE(references(block) > 0, "block {} is free already", block);
  if (--references_[static_cast<size_t>(block)] > 0) return;
  mark(block, true);
  ++num_free_;
}

}  // namespace tessera::batching
