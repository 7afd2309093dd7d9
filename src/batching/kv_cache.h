// Who owns which block of a server's KV cache, and which blocks are kept after their last owner has gone
// because a later request may begin with the same tokens.
//
// Invariants (random schedules check them against a plain model, in reuse_test.cpp):
//   - num_available() blocks can be taken, free ones first, then kept ones, least recently used first: as long
//   as
//     a block is kept, take() succeeds;
//   - a kept block never stays when what stands in front of it has gone, so every kept block can be found;
//   - when all owners have let go, num_available() is the number of all blocks.
// A kept block that must make room goes to the next tier, if there is one: host memory, then disk; from the
// last one it is dropped. The caller moves the bytes: moves, in their order, before the next step runs.
// Threads: one at a time.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "batching/kv_blocks.h"
#include "batching/prefix_tree.h"

namespace tessera::batching {

// The bytes of one block go to another place.
struct KvMove {
  int64_t from_tier = 0, to_tier = 0;
  BlockId from = 0, to = 0;
  bool operator==(const KvMove&) const = default;
};

// Blocks of one request, in the order of its tokens; the first ones have names in the tree.
struct KvOwned {
  std::string salt;
  std::vector<BlockId> blocks;
  std::vector<PrefixNode*> named;  // of blocks[0], blocks[1], ...
};

class KvCache {
 public:
  // Blocks of tier 0, 1, ...; at least tier 0. Higher tiers may be empty.
  KvCache(std::vector<int64_t> blocks, int64_t block_tokens);

  int64_t num_available() const { return pools_[0].num_free() + num_kept(); }
  int64_t num_kept() const { return static_cast<int64_t>(kept_[0].size()); }
  const BlockPool& pool() const { return pools_[0]; }

  // Nodes that spell the beginning of `tokens`, whole blocks, at most `most`.
  std::vector<PrefixNode*> match(const std::string& salt, std::span<const int64_t> tokens, int64_t most) const;
  // Blocks of num_available() that share() of these nodes would use up.
  int64_t cost_of(std::span<PrefixNode* const> nodes) const;
  // Gives the matched blocks to a request that owns none. REQUIRES: num_available() >= cost_of(nodes).
  void share(std::span<PrefixNode* const> nodes, KvOwned& owned);
  // One more block. REQUIRES: num_available() > 0.
  void take(KvOwned& owned);
  // The first `computed` of the tokens are in the cache: full blocks get names. When another request computed
  // the same one before, its block replaces the own, whose bytes are equal.
  void name(std::span<const int64_t> tokens, int64_t computed, KvOwned& owned);
  // The request lets go of all its blocks.
  void release(KvOwned& owned);
  // The content of all tiers is lost. REQUIRES: no request owns a block.
  void forget();
  // The same, and from now on nothing goes to this tier, above 0.
  void drop_tier(int64_t tier);

  std::vector<KvMove> take_moves();

 private:
  BlockId allocate();
  BlockId allocate(size_t tier);
  void demote(size_t tier);
  void drop(PrefixNode* node);
  size_t tier_below(size_t tier) const;
  void list(PrefixNode* node);
  void unlist(PrefixNode* node);
  void own(PrefixNode* node);
  void place_new(PrefixNode* node, BlockId block);

  int64_t block_tokens_;
  PrefixTree tree_;
  std::vector<BlockPool> pools_;              // one for each tier
  std::vector<std::list<PrefixNode*>> kept_;  // least recently used first
  std::vector<KvMove> moves_;
};

}  // namespace tessera::batching
