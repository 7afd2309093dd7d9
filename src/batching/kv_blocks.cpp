#include "batching/kv_blocks.h"

#include "core/result.h"

namespace tessera::batching {

BlockPool::BlockPool(int64_t blocks) : references_(static_cast<size_t>(blocks), 0) {
  for (int64_t block = 0; block < blocks; ++block) free_.push(static_cast<BlockId>(block));
}

std::optional<BlockId> BlockPool::allocate() {
  if (free_.empty()) return std::nullopt;
  BlockId block = free_.top();
  free_.pop();
  references_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::share(BlockId block) {
  TESSERA_REQUIRE(references(block) > 0, "block {} is free and cannot be shared", block);
  ++references_[static_cast<size_t>(block)];
}

void BlockPool::release(BlockId block) {
  TESSERA_REQUIRE(references(block) > 0, "block {} is free already", block);
  if (--references_[static_cast<size_t>(block)] == 0) free_.push(block);
}

}  // namespace tessera::batching
