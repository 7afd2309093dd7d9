// Byte pair encoding of one word: start from one symbol for each byte, then merge again and again the
// neighbouring pair of lowest rank (leftmost first among equals) until none is left.
// Time: n log n in the length of the word, so a hostile word of a megabyte is no danger.
// Threads: encode() from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tessera::data {

class BytePairs {
 public:
  // Ids of the 256 single bytes; -1 where the vocabulary lacks one (such bytes are dropped, as Hugging Face
  // does without an unknown token).
  explicit BytePairs(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  // Ranks are given by the order of the calls; of two equal pairs the later one wins, as in Hugging Face.
  void add_merge(int32_t left, int32_t right, int32_t merged);

  void encode(std::string_view word, std::vector<int64_t>& ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  const Merge* find(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_;
  std::unordered_map<uint64_t, Merge> merges_;
  int32_t next_rank_ = 0;
};

}  // namespace tessera::data
