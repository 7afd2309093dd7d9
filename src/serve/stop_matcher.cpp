#include "serve/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace tessera::serve {

StopMatcher::StopMatcher(std::vector<std::string> stops, std::string until)
    : stops_(std::move(stops)), until_(std::move(until)) {}

// Behind it in `text`; npos when it is not complete.
size_t StopMatcher::end_of_until(std::string_view text) {
  if (until_.empty()) return std::string::npos;
  size_t before = last_.size();
  last_ += text;
  size_t at = last_.find(until_);
  if (at != std::string::npos) return at + until_.size() - before;
  last_.erase(0, last_.size() - std::min(last_.size(), until_.size() - 1));
  return at;
}

std::string StopMatcher::push(std::string_view text) {
  if (found_) return {};
  if (past_until_) return std::string(text);
  size_t end = end_of_until(text), first = std::string::npos;
  if (end != std::string::npos) end += held_.size();
  held_ += text;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  found_ = first != std::string::npos && first < end;
  past_until_ = !found_ && end != std::string::npos;
  if (past_until_) return flush();
  std::string shown = held_.substr(0, found_ ? first : held_.size() - possible_beginning());
  held_ = found_ ? "" : held_.substr(shown.size());
  return shown;
}

std::string StopMatcher::skip(std::string_view text) {
  past_until_ |= end_of_until(text) != std::string::npos;
  return flush() + std::string(text);
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
