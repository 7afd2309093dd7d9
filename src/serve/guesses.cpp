#include "serve/guesses.h"

#include <algorithm>

namespace tessera::serve {

namespace {

constexpr ptrdiff_t kLongest = 4, kShortest = 2;
constexpr int64_t kLongestPause = 16;

// Where the last `size` tokens end when they stood there before, the latest place; 0: nowhere.
size_t end_of_earlier(std::span<const int64_t> tokens, size_t size) {
  auto pattern = tokens.last(size);
  auto before = tokens.first(tokens.size() - 1);
  auto found = std::find_end(before.begin(), before.end(), pattern.begin(), pattern.end());
  return found == before.end() ? 0 : static_cast<size_t>(found - before.begin()) + size;
}

}  // namespace

std::vector<int64_t> repeat_guess(std::span<const int64_t> tokens, int64_t most) {
  for (ptrdiff_t size = kLongest; most > 0 && size >= kShortest; --size) {
    if (std::ssize(tokens) <= size) continue;
    size_t end = end_of_earlier(tokens, static_cast<size_t>(size));
    if (end == 0) continue;
    auto after = tokens.subspan(end);
    return {after.begin(), after.begin() + std::min(most, std::ssize(after))};
  }
  return {};
}

int64_t GuessLength::next() {
  if (left_ == 0) return length_;
  --left_;
  return 0;
}

void GuessLength::checked(int64_t guessed, int64_t right) {
  if (guessed == 0) return;
  length_ = right == guessed ? std::min(most_, std::max(length_, 2 * right)) : std::min(most_, right + 1);
  pause_ = right > 0 ? 1 : std::min(2 * pause_, kLongestPause);
  left_ = right > 0 ? 0 : pause_;
}

}  // namespace tessera::serve
