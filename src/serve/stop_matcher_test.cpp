#include "serve/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace tessera::serve {
namespace {

TEST(StopMatcher, FindsAStopStringAcrossPieces) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("a story E"), "a story ");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("D more"), "");
  EXPECT_TRUE(matcher.found());
  EXPECT_EQ(matcher.push("later"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, ShowsHeldTextOnceItCannotBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("EN"), "");
  EXPECT_EQ(matcher.push("TRY"), "ENTRY");
  EXPECT_EQ(matcher.push("E"), "");
  EXPECT_EQ(matcher.flush(), "E");
}

// Against a search in the whole text, for random texts of few letters cut at random places.
TEST(StopMatcher, EqualsASearchInTheWholeTextForAnyCuts) {
  std::mt19937 random(1);
  auto letters = [&](size_t length) {
    std::string text;
    while (text.size() < length) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops = {letters(1 + random() % 5), letters(2 + random() % 6)};
    std::string text = letters(random() % 20);
    StopMatcher matcher(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      size_t length = 1 + random() % 4;
      shown += matcher.push(text.substr(at, length));
      at += length;
      if (matcher.found()) break;
    }
    shown += matcher.flush();
    size_t first = std::min(text.find(stops[0]), text.find(stops[1]));
    // A longer stop that begins earlier may complete after a shorter one was found; both cuts are right ends.
    if (first == std::string::npos)
      EXPECT_EQ(shown, text);
    else
      EXPECT_TRUE(shown == text.substr(0, first) || shown == text.substr(0, text.find(stops[0])) ||
                  shown == text.substr(0, text.find(stops[1])))
          << text << " " << stops[0] << " " << stops[1] << " " << shown;
  }
}

}  // namespace
TEST(StopMatcher, LooksForNothingBehindUntil) {
  StopMatcher stops({"ab"}, "<call>");
  EXPECT_EQ(stops.push("x a"), "x ");
  EXPECT_EQ(stops.push("<ca"), "a<c");
  EXPECT_EQ(stops.push("ll> ab a"), "all> ab a");
  EXPECT_EQ(stops.push("b"), "b");
  EXPECT_FALSE(stops.found());
  StopMatcher before({"ab"}, "<call>");
  EXPECT_EQ(before.push("xab<call>"), "x");
  EXPECT_TRUE(before.found());
}

}  // namespace tessera::serve
