// Stop strings in text that arrives piece by piece: a stop string may begin in one token and end in a later
// one, so text that could be its beginning is held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::serve {

class StopMatcher {
 public:
  // No stop string is empty. Behind the first `until` (if it is not empty) none is looked for.
  explicit StopMatcher(std::vector<std::string> stops, std::string until = "");

  // Text that can be shown now. After a stop string was found only the text in front of it comes out, and
  // later text is dropped.
  std::string push(std::string_view text);
  // Text in which stop strings do not count; all of it can be shown.
  std::string skip(std::string_view text);
  bool found() const { return found_; }
  // At the end of the answer: the text still held back.
  std::string flush();

 private:
  size_t possible_beginning() const;
  size_t end_of_until(std::string_view text);
  std::vector<std::string> stops_;
  std::string until_;
  std::string last_;  // of the text so far, as much as could begin until_
  std::string held_;
  bool past_until_ = false;
  bool found_ = false;
};

}  // namespace tessera::serve
