// A template comes with a model from a stranger: whatever it does must end soon and in little memory.
#pragma once

#include <cstdint>

#include "chat/value.h"

namespace tessera::chat {

class Budget {
 public:
  // So much more is done: about one unit for each node that is evaluated or element that is made.
  void work(uint64_t units = 1) { spend(work_, units, "it takes too long"); }
  // So much text is about to be made, all texts of one rendering together.
  void text(uint64_t bytes) { spend(text_, bytes, "it makes too much text"); }

 private:
  static void spend(uint64_t& left, uint64_t amount, const char* what) {
    if (amount > left) throw TemplateError(what);
    left -= amount;
  }
  uint64_t work_ = 10'000'000, text_ = 256u << 20;
};

}  // namespace tessera::chat
