// Prompts that begin alike need the keys and values of their common beginning only once. The tree names a full
// block by its tokens and by all tokens in front of it, so that a later request finds it. Tokens are compared,
// not their hashes: two prefixes never share a name by chance, and a salt (a tenant's) has a tree of its own.
//
// A node lies in one tier: 0 is the cache that kernels read, higher ones are slower (host memory, disk).
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "batching/kv_blocks.h"

namespace tessera::batching {

struct PrefixNode {
  std::vector<int64_t> tokens;  // of its block
  PrefixNode* parent = nullptr;
  std::map<std::vector<int64_t>, std::unique_ptr<PrefixNode>> children;  // by their tokens
  int64_t tier = 0;
  BlockId block = 0;  // its place within the tier
  // Where it stands in the list of its tier, least recently used first, while it may be taken out.
  std::list<PrefixNode*>::iterator place;
  bool listed = false;
};

class PrefixTree {
 public:
  // The deepest nodes that spell `tokens` in whole blocks, from the root on; at most `most`.
  std::vector<PrefixNode*> find(const std::string& salt, std::span<const int64_t> tokens, int64_t block_tokens,
                                int64_t most) const;
  // The child of `parent` (null: the root of `salt`) for `tokens`; made, without a block, when it is missing.
  struct Made {
    PrefixNode* node = nullptr;
    bool is_new = false;
  };
  Made child(PrefixNode* parent, const std::string& salt, std::span<const int64_t> tokens);
  // REQUIRES: no children. A salt without nodes is forgotten.
  void remove(PrefixNode* leaf);

 private:
  std::map<std::string, PrefixNode> roots_;
};

}  // namespace tessera::batching
