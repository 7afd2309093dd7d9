#include "data/pair_merger.h"

#include <algorithm>

namespace tessera::data {
namespace {

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// True when there was something to replace.
bool replace(std::vector<int32_t>& symbols, const PairMerger::Pair& pair, int32_t merged) {
  size_t kept = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    bool hit = symbols[i] == pair.left && i + 1 < symbols.size() && symbols[i + 1] == pair.right;
    symbols[kept++] = hit ? merged : symbols[i];
    if (hit) ++i;
  }
  bool changed = kept < symbols.size();
  symbols.resize(kept);
  return changed;
}

}  // namespace

void PairMerger::add_word(std::vector<int32_t> symbols, int64_t count) {
  if (symbols.size() > 1) words_.push_back({std::move(symbols), count});
}

void PairMerger::start() {
  for (uint32_t index = 0; index < words_.size(); ++index) tally(index, +1, kAny);
  touched_.clear();
  for (const auto& [key, tally] : tallies_) queue_.push({tally.count, key});
}

void PairMerger::tally(uint32_t index, int64_t sign, int32_t fresh) {
  const Word& word = words_[index];
  for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
    uint64_t key = key_of(word.symbols[i], word.symbols[i + 1]);
    Tally& entry = tallies_[key];
    entry.count += sign * word.count;
    bool is_new = fresh == kAny || word.symbols[i] == fresh || word.symbols[i + 1] == fresh;
    if (sign < 0 || !is_new) continue;
    touched_.push_back(key);
    if (entry.words.empty() || entry.words.back() != index) entry.words.push_back(index);
  }
}

std::optional<PairMerger::Pair> PairMerger::most_frequent() {
  while (!queue_.empty()) {
    Entry top = queue_.top();
    queue_.pop();
    auto found = tallies_.find(top.key);
    if (found == tallies_.end() || found->second.count <= 0) continue;
    if (found->second.count == top.count)
      return Pair{static_cast<int32_t>(top.key >> 32), static_cast<int32_t>(top.key & 0xFFFFFFFF), top.count};
    if (found->second.count < top.count) queue_.push({found->second.count, top.key});
    // A count that grew has a newer entry already.
  }
  return std::nullopt;
}

void PairMerger::merge(const Pair& pair, int32_t merged) {
  auto node = tallies_.extract(key_of(pair.left, pair.right));
  if (node.empty()) return;
  touched_.clear();
  for (uint32_t index : node.mapped().words) {
    std::vector<int32_t> after = words_[index].symbols;
    if (!replace(after, pair, merged)) continue;
    tally(index, -1, merged);
    words_[index].symbols = std::move(after);
    tally(index, +1, merged);
  }
  tallies_.erase(key_of(pair.left, pair.right));
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  for (uint64_t key : touched_)
    if (auto found = tallies_.find(key); found != tallies_.end()) queue_.push({found->second.count, key});
}

}  // namespace tessera::data
