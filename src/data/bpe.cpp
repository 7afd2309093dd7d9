#include "data/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace tessera::data {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A symbol of the word in a doubly linked list; merged-away symbols have id -1.
struct MergedSymbol {
  int32_t id;
  int32_t previous, next;
};

// A pair that may be merged; stale when its symbols have changed since.
struct RankedPair {
  int32_t rank;
  int32_t left;    // index of the left symbol
  int32_t merged;  // the id it would become
  bool operator>(const RankedPair& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

}  // namespace

void BytePairs::add_merge(int32_t left, int32_t right, int32_t merged) {
  merges_[pair_key(left, right)] = {next_rank_++, merged};
}

const BytePairs::Merge* BytePairs::find(int32_t left, int32_t right) const {
  auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::encode(std::string_view word, std::vector<int64_t>& ids) const {
  std::vector<MergedSymbol> symbols;
  symbols.reserve(word.size());
  for (char byte : word) {
    int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    auto index = static_cast<int32_t>(symbols.size());
    if (id >= 0) symbols.push_back({id, index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::priority_queue<RankedPair, std::vector<RankedPair>, std::greater<>> queue;
  auto offer = [&](int32_t left) {
    if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
    const MergedSymbol& symbol = symbols[static_cast<size_t>(left)];
    if (const Merge* merge = find(symbol.id, symbols[static_cast<size_t>(symbol.next)].id))
      queue.push({merge->rank, left, merge->merged});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) offer(static_cast<int32_t>(i));

  while (!queue.empty()) {
    RankedPair best = queue.top();
    queue.pop();
    MergedSymbol& left = symbols[static_cast<size_t>(best.left)];
    if (left.id < 0 || left.next < 0) continue;
    MergedSymbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = find(left.id, right.id);
    if (merge == nullptr || merge->rank != best.rank) continue;
    left.id = merge->merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    ids.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace tessera::data
