// Keys and values that came from another process, until they are put in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tessera::serve {

// Of the whole blocks at the beginning of a prompt, one behind the other.
struct BroughtKv {
  std::vector<std::byte> bytes;
  int64_t blocks = 0;
  std::shared_ptr<void> room;  // that they take among all that wait; given back with the last copy
};

}  // namespace tessera::serve
