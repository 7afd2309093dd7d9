#include "batching/prefix_tree.h"

#include <algorithm>

#include "core/result.h"

namespace tessera::batching {

std::vector<PrefixNode*> PrefixTree::find(const std::string& salt, std::span<const int64_t> tokens,
                                          int64_t block_tokens, int64_t most) const {
  std::vector<PrefixNode*> path;
  auto root = roots_.find(salt);
  if (root == roots_.end()) return path;
  const PrefixNode* at = &root->second;
  auto whole = std::min(std::ssize(tokens) / block_tokens, most);
  for (int64_t i = 0; i < whole; ++i) {
    auto block = tokens.subspan(static_cast<size_t>(i * block_tokens), static_cast<size_t>(block_tokens));
    auto child = at->children.find({block.begin(), block.end()});
    if (child == at->children.end()) break;
    path.push_back(child->second.get());
    at = path.back();
  }
  return path;
}

PrefixTree::Made PrefixTree::child(PrefixNode* parent, const std::string& salt,
                                   std::span<const int64_t> tokens) {
  PrefixNode& at = parent ? *parent : roots_[salt];
  auto [child, is_new] = at.children.try_emplace({tokens.begin(), tokens.end()});
  if (!is_new) return {child->second.get(), false};
  child->second = std::make_unique<PrefixNode>();
  child->second->tokens = child->first;
  child->second->parent = &at;
  return {child->second.get(), true};
}

void PrefixTree::remove(PrefixNode* leaf) {
  TESSERA_REQUIRE(leaf->children.empty(), "a node with {} children cannot go", leaf->children.size());
  PrefixNode* parent = leaf->parent;
  std::vector<int64_t> key = std::move(leaf->tokens);
  parent->children.erase(key);
  bool was_root = parent->parent == nullptr;
  if (was_root && parent->children.empty())
    std::erase_if(roots_, [parent](const auto& root) { return &root.second == parent; });
}

}  // namespace tessera::batching
