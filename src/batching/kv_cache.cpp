#include "batching/kv_cache.h"

#include <utility>

#include "core/result.h"

namespace tessera::batching {

// A named block of tier 0 has one reference of the tree and one of each owner.
KvCache::KvCache(std::vector<int64_t> blocks, int64_t block_tokens)
    : block_tokens_(block_tokens), kept_(blocks.size()) {
  for (int64_t count : blocks) pools_.emplace_back(count);
}

std::vector<PrefixNode*> KvCache::match(const std::string& salt, std::span<const int64_t> tokens,
                                        int64_t most) const {
  return tree_.find(salt, tokens, block_tokens_, most);
}

int64_t KvCache::cost_of(std::span<PrefixNode* const> nodes) const {
  int64_t cost = 0;
  for (const PrefixNode* node : nodes) cost += node->listed;
  return cost;
}

void KvCache::share(std::span<PrefixNode* const> nodes, KvOwned& owned) {
  TESSERA_REQUIRE(owned.blocks.empty(), "a request with {} blocks cannot share a prefix", owned.blocks.size());
  // All first leave the lists, so that none is taken out to make room for another.
  std::vector<bool> was_listed;
  for (PrefixNode* node : nodes) {
    was_listed.push_back(node->listed);
    if (node->listed) unlist(node);
  }
  for (PrefixNode* node : nodes) {
    own(node);
    owned.blocks.push_back(node->block);
    owned.named.push_back(node);
  }
}

// One more owner of a node that stands in no list; brings it to tier 0.
void KvCache::own(PrefixNode* node) {
  if (node->tier == 0) return pools_[0].share(node->block);
  BlockId block = allocate();
  auto from = static_cast<size_t>(node->tier);
  moves_.push_back({.from_tier = node->tier, .to_tier = 0, .from = node->block, .to = block});
  pools_[from].release(node->block);
  node->tier = 0;
  node->block = block;
  pools_[0].share(block);
}

void KvCache::take(KvOwned& owned) {
  owned.blocks.push_back(allocate());
}

void KvCache::name(std::span<const int64_t> tokens, int64_t computed, KvOwned& owned) {
  while (std::ssize(owned.named) < computed / block_tokens_) {
    size_t i = owned.named.size();
    auto block = tokens.subspan(i * static_cast<size_t>(block_tokens_), static_cast<size_t>(block_tokens_));
    PrefixNode* parent = owned.named.empty() ? nullptr : owned.named.back();
    auto [node, is_new] = tree_.child(parent, owned.salt, block);
    if (is_new)
      place_new(node, owned.blocks[i]);
    else if (node->tier > 0) {
      unlist(node);
      pools_[static_cast<size_t>(node->tier)].release(node->block);
      place_new(node, owned.blocks[i]);
    } else {
      if (node->listed) unlist(node);
      pools_[0].share(node->block);
      pools_[0].release(std::exchange(owned.blocks[i], node->block));
    }
    owned.named.push_back(node);
  }
}

void KvCache::place_new(PrefixNode* node, BlockId block) {
  node->tier = 0;
  node->block = block;
  pools_[0].share(block);
}

// Deepest first, so that in the lists a block stands before what it continues.
void KvCache::release(KvOwned& owned) {
  for (size_t i = owned.blocks.size(); i-- > 0;) {
    pools_[0].release(owned.blocks[i]);
    if (i < owned.named.size() && pools_[0].references(owned.blocks[i]) == 1) list(owned.named[i]);
  }
  owned.blocks.clear();
  owned.named.clear();
}

void KvCache::forget() {
  for (size_t tier = 0; tier < kept_.size(); ++tier)
    for (PrefixNode* node : kept_[tier]) pools_[tier].release(node->block);
  for (auto& nodes : kept_) nodes.clear();
  tree_ = {};
  moves_.clear();
  TESSERA_REQUIRE(pools_[0].num_used() == 0, "{} blocks still have owners", pools_[0].num_used());
}

void KvCache::drop_tier(int64_t tier) {
  TESSERA_REQUIRE(tier > 0, "the cache itself cannot go");
  forget();
  pools_[static_cast<size_t>(tier)] = BlockPool(0);
}

std::vector<KvMove> KvCache::take_moves() {
  return std::exchange(moves_, {});
}

BlockId KvCache::allocate() {
  return allocate(0);
}

BlockId KvCache::allocate(size_t tier) {
  if (pools_[tier].num_free() == 0) demote(tier);
  return pools_[tier].allocate().value();
}

// The next tier that can take a block; the number of tiers when there is none.
size_t KvCache::tier_below(size_t tier) const {
  size_t next = tier + 1;
  while (next < pools_.size() && pools_[next].num_free() == 0 && kept_[next].empty()) ++next;
  return next;
}

// Takes the least recently used block of a tier out of it.
void KvCache::demote(size_t tier) {
  TESSERA_REQUIRE(!kept_[tier].empty(), "all {} blocks of tier {} have owners", pools_[tier].total(), tier);
  PrefixNode* node = kept_[tier].front();
  size_t next = tier_below(tier);
  if (next == pools_.size()) return drop(node);
  unlist(node);
  BlockId left = node->block;
  node->block = allocate(next);
  node->tier = static_cast<int64_t>(next);
  moves_.push_back(
      {.from_tier = static_cast<int64_t>(tier), .to_tier = node->tier, .from = left, .to = node->block});
  list(node);
  pools_[tier].release(left);
}

// What continues a dropped block could not be found any more, so it goes too. None of it has an owner: who owns
// a block owns all in front of it.
void KvCache::drop(PrefixNode* node) {
  while (!node->children.empty()) drop(node->children.begin()->second.get());
  unlist(node);
  pools_[static_cast<size_t>(node->tier)].release(node->block);
  tree_.remove(node);
}

void KvCache::list(PrefixNode* node) {
  auto& nodes = kept_[static_cast<size_t>(node->tier)];
  node->place = nodes.insert(nodes.end(), node);
  node->listed = true;
}

void KvCache::unlist(PrefixNode* node) {
  kept_[static_cast<size_t>(node->tier)].erase(node->place);
  node->listed = false;
}

}  // namespace tessera::batching
