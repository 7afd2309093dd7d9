#include "grammar/char_set.h"

#include <algorithm>

namespace tessera::grammar {

namespace {

constexpr uint32_t kLast = 0x10FFFF, kFirstHalf = 0xD800, kLastHalf = 0xDFFF;

}  // namespace

CharSet::CharSet(std::initializer_list<CharRange> ranges) {
  for (CharRange range : ranges) add(range);
}

const CharSet& CharSet::all() {
  static const CharSet set = {{0, kFirstHalf - 1}, {kLastHalf + 1, kLast}};
  return set;
}

void CharSet::add(CharRange range) {
  std::vector<CharRange> out;
  for (CharRange own : ranges_) {
    bool apart = own.last + 1 < range.first || range.last + 1 < own.first;
    if (apart)
      out.push_back(own);
    else
      range = {std::min(own.first, range.first), std::max(own.last, range.last)};
  }
  out.push_back(range);
  std::sort(out.begin(), out.end());
  ranges_ = std::move(out);
}

void CharSet::add(const CharSet& other) {
  for (CharRange range : other.ranges_) add(range);
}

CharSet CharSet::complement() const {
  CharSet own = *this, out;
  own.add({kFirstHalf, kLastHalf});
  uint32_t next = 0;
  for (CharRange range : own.ranges_) {
    if (next < range.first) out.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLast) out.ranges_.push_back({next, kLast});
  return out;
}

bool CharSet::contains(uint32_t character) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](CharRange range) { return range.first <= character && character <= range.last; });
}

}  // namespace tessera::grammar
