// Text repeats itself: names, code, quotes of the prompt. What followed the last few tokens when they stood
// there before is a guess at what follows now, free of a second model (prompt lookup). The engine computes
// guesses in the same step as the last known token, and keeps those that equal its own choice: the answer is
// the same, bit for bit, with or without them. Threads: one at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera::serve {

// At most `most` tokens that followed the latest earlier place of the last 4 tokens, or 3, or 2; empty when
// they stood nowhere before.
std::vector<int64_t> repeat_guess(std::span<const int64_t> tokens, int64_t most);

// How many guesses pay: twice as many after all were right, one more than were right otherwise, and after none
// was, a pause that doubles.
class GuessLength {
 public:
  explicit GuessLength(int64_t most) : most_(most), length_(most) {}
  int64_t next();  // for the coming step; may be 0
  void checked(int64_t guessed, int64_t right);

 private:
  int64_t most_, length_, pause_ = 1, left_ = 0;
};

}  // namespace tessera::serve
