// Snapshots of one store may be followed by several readers, each with deltas of its own (SnapshotChain). A row
// notes once that it changed, whoever will want to know. The cut that takes the note owes the row to the other
// chains until each of them is cut; the same with ids that were removed.
//
// Threads: whoever holds the shard.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "recsys/store.h"

namespace tessera::recsys {

class OwedRows {
 public:
  // Of the 64 rows of a word `changed` have changed since the last cut of any chain. Returns those that changed
  // since the last one of this chain; and rows that took the place of such a one.
  uint64_t cut(SnapshotChain chain, size_t word, uint64_t changed) {
    for (size_t other = 0; other < kSnapshotChains; ++other) {
      if (other == index(chain) || !follows_[other] || changed == 0) continue;
      if (words_[other].size() <= word) words_[other].resize(word + 1);
      words_[other][word] |= changed;
    }
    if (chain == SnapshotChain::none) return changed;
    std::vector<uint64_t>& mine = words_[index(chain)];
    return word < mine.size() ? changed | std::exchange(mine[word], 0) : changed;
  }
  void cut(SnapshotChain chain, std::vector<uint64_t>& removed) {
    for (size_t other = 0; other < kSnapshotChains; ++other)
      if (other != index(chain) && follows_[other])
        removed_[other].insert(removed_[other].end(), removed.begin(), removed.end());
    if (chain == SnapshotChain::none) return;
    removed.insert(removed.end(), removed_[index(chain)].begin(), removed_[index(chain)].end());
    removed_[index(chain)] = {};
  }
  // From here on what changes is owed to this chain.
  void follow(SnapshotChain chain) {
    if (chain != SnapshotChain::none) follows_[index(chain)] = true;
  }
  // Nobody will cut this chain again, unless it begins anew.
  void forget(SnapshotChain chain) {
    follows_[index(chain)] = false;
    words_[index(chain)] = {};
    removed_[index(chain)] = {};
  }
  // Whether some chain has not seen the row since it changed: a row that moves takes this along.
  bool owes(uint32_t row) const {
    for (const std::vector<uint64_t>& words : words_)
      if (row / 64 < words.size() && (words[row / 64] >> row % 64 & 1) != 0) return true;
    return false;
  }

 private:
  static size_t index(SnapshotChain chain) { return static_cast<size_t>(chain); }
  std::array<std::vector<uint64_t>, kSnapshotChains> words_, removed_;
  std::array<bool, kSnapshotChains> follows_ = {};
};

}  // namespace tessera::recsys
