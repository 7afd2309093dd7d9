#include "serve/guesses.h"

#include <gtest/gtest.h>

namespace tessera::serve {
namespace {

using Tokens = std::vector<int64_t>;

TEST(Guesses, TheLatestPlaceOfTheLongestEndCounts) {
  EXPECT_EQ(repeat_guess(Tokens{1, 2, 3, 7, 8, 1, 2, 3}, 2), (Tokens{7, 8}));
  EXPECT_EQ(repeat_guess(Tokens{1, 2, 3, 7, 5, 2, 3, 9, 4, 1, 2, 3}, 1),
            (Tokens{7}));  // three tokens before two
  EXPECT_EQ(repeat_guess(Tokens{2, 3, 7, 2, 3, 9, 2, 3}, 1), (Tokens{9}));
  EXPECT_EQ(repeat_guess(Tokens{5, 5, 5, 5}, 8), (Tokens{5}));  // not beyond what is known
}

TEST(Guesses, WithoutRepetitionThereIsNone) {
  EXPECT_TRUE(repeat_guess(Tokens{1, 2, 3, 4, 5}, 4).empty());
  EXPECT_TRUE(repeat_guess(Tokens{1}, 4).empty());
  EXPECT_TRUE(repeat_guess(Tokens{1, 2, 1, 2}, 0).empty());
}

TEST(Guesses, LengthFollowsSuccess) {
  GuessLength length(8);
  EXPECT_EQ(length.next(), 8);
  length.checked(8, 1);
  EXPECT_EQ(length.next(), 2);
  length.checked(2, 2);
  EXPECT_EQ(length.next(), 4);
  length.checked(4, 0);
  EXPECT_EQ(length.next(), 0);
  EXPECT_EQ(length.next(), 0);
  EXPECT_EQ(length.next(), 1);
}

}  // namespace
}  // namespace tessera::serve
