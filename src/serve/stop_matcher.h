// Stop strings in text that arrives piece by piece: a stop string may begin in one token and end in a later
// one, so text that could be its beginning is held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::serve {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);  // none of them empty

  // Text that can be shown now. After a stop string was found only the text in front of it comes out, and
  // later text is dropped.
  std::string push(std::string_view text);
  bool found() const { return found_; }
  // At the end of the answer: the text still held back.
  std::string flush();

 private:
  size_t possible_beginning() const;
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace tessera::serve
