// Sets of Unicode characters, without the halves of surrogate pairs. Threads: none of its own.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera::grammar {

struct CharRange {
  uint32_t first, last;
  auto operator<=>(const CharRange&) const = default;
};

// Ranges in ascending order, with gaps between them.
class CharSet {
 public:
  CharSet() = default;
  CharSet(std::initializer_list<CharRange> ranges);

  static const CharSet& all();
  void add(CharRange range);
  void add(const CharSet& other);
  CharSet complement() const;
  bool contains(uint32_t character) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<CharRange>& ranges() const { return ranges_; }
  auto operator<=>(const CharSet&) const = default;

 private:
  std::vector<CharRange> ranges_;
};

}  // namespace tessera::grammar
