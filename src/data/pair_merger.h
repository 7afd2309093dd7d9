// The heart of BPE training: words as lists of symbols, counts of neighbouring pairs, and merging the most
// frequent pair while keeping every count exact.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <unordered_map>
#include <vector>

namespace tessera::data {

class PairMerger {
 public:
  struct Pair {
    int32_t left, right;
    int64_t count;
  };

  void add_word(std::vector<int32_t> symbols, int64_t count);
  // Call once, after the last word.
  void start();

  // The pair with the highest count, the smaller (left, right) among equals; nothing when none is left.
  std::optional<Pair> most_frequent();
  // Replaces the pair by `merged` in every word, from left to right. Other pairs may have led to `merged`
  // before.
  void merge(const Pair& pair, int32_t merged);

 private:
  struct Word {
    std::vector<int32_t> symbols;
    int64_t count;
  };
  struct Tally {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where the pair may be; ascending runs, repeats are possible
  };
  struct Entry {
    int64_t count;
    uint64_t key;
    bool operator<(const Entry& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };
  // Adds (sign 1) or takes away (-1) the pairs of one word. Pairs with the symbol `fresh`, or all when it is
  // kAny, are new in this word.
  static constexpr int32_t kAny = -1;
  void tally(uint32_t index, int64_t sign, int32_t fresh);

  std::vector<Word> words_;
  std::unordered_map<uint64_t, Tally> tallies_;
  std::priority_queue<Entry> queue_;  // may be stale: counts are checked when popped
  std::vector<uint64_t> touched_;     // pairs whose count grew in the merge under way
};

}  // namespace tessera::data
