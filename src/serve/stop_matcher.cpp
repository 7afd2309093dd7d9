#include "serve/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace tessera::serve {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

std::string StopMatcher::push(std::string_view text) {
  if (found_) return {};
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  found_ = first != std::string::npos;
  std::string shown = held_.substr(0, found_ ? first : held_.size() - possible_beginning());
  held_ = found_ ? "" : held_.substr(shown.size());
  return shown;
}

std::string StopMatcher::flush() {
  return std::exchange(held_, {});
}

// Length of the longest end of the held text that a stop string begins with.
size_t StopMatcher::possible_beginning() const {
  size_t longest = 0;
  for (const std::string& stop : stops_)
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length)
      if (held_.ends_with(std::string_view(stop).substr(0, length))) longest = length;
  return longest;
}

}  // namespace tessera::serve
