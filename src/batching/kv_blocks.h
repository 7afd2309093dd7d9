// The KV cache of a server is cut into blocks of equal size. A block belongs to one or more sequences (shared
// prefixes) and goes back to the pool when the last of them lets it go.
//
// Invariants: a block is free exactly when its count is zero; free + used == total; the lowest free block is
// given first, so that a schedule repeats. Letting go of a free block is a programmer error.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace tessera::batching {

using BlockId = int32_t;

class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  std::optional<BlockId> allocate();  // with one reference; nullopt when none is free
  void share(BlockId block);          // one more reference to a used block
  void release(BlockId block);        // one less; the last one frees the block

  int64_t total() const { return static_cast<int64_t>(references_.size()); }
  int64_t num_free() const { return num_free_; }
  int64_t num_used() const { return total() - num_free(); }
  int64_t references(BlockId block) const { return references_.at(static_cast<size_t>(block)); }

 private:
  void mark(BlockId block, bool free);

  std::vector<int64_t> references_;
  int64_t num_free_ = 0;
  // A bit per free block, above it a bit per word that is not zero, and so on up to one word: the lowest free
  // block is found in as many steps as there are levels.
  std::vector<std::vector<uint64_t>> free_;
};

// Blocks that `tokens` tokens need.
inline int64_t blocks_for(int64_t tokens, int64_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

}  // namespace tessera::batching
