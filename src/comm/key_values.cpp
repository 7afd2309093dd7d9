#include "comm/key_values.h"

#include <charconv>

namespace tessera::comm {

void KeyValues::tell_change() {
  changed_.notify_all();
  if (changed_call_) changed_call_();
}

Status KeyValues::set(const std::string& key, const std::string& value) {
  {
    std::lock_guard lock(mutex_);
    values_[key] = value;
  }
  tell_change();
  return {};
}

Result<std::string> KeyValues::get(const std::string& key, Deadline deadline) {
  std::unique_lock lock(mutex_);
  bool there = changed_.wait_until(lock, deadline.at, [&] { return values_.contains(key); });
  if (there) return values_[key];
  return make_error(ErrorCode::deadline_exceeded, "nobody has set key '{}' in time", key);
}

Result<int64_t> KeyValues::add(const std::string& key, int64_t amount) {
  int64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    std::string& value = values_.try_emplace(key, "0").first->second;
    const char* end = value.data() + value.size();
    auto [rest, failed] = std::from_chars(value.data(), end, number);
    if (failed != std::errc() || rest != end) {
      return invalid("key '{}' holds '{}', which is no whole number to add to", key, value.substr(0, 40));
    }
    number += amount;
    value = std::to_string(number);
  }
  tell_change();
  return number;
}

Result<std::optional<std::string>> KeyValues::try_get(const std::string& key) {
  std::lock_guard lock(mutex_);
  auto found = values_.find(key);
  if (found == values_.end()) return std::optional<std::string>();
  return std::optional<std::string>(found->second);
}

Result<int64_t> KeyValues::erase_prefix(const std::string& prefix) {
  std::lock_guard lock(mutex_);
  auto first = values_.lower_bound(prefix), last = first;
  int64_t erased = 0;
  for (; last != values_.end() && last->first.starts_with(prefix); ++last) ++erased;
  values_.erase(first, last);
  return erased;
}

}  // namespace tessera::comm

namespace tessera {

std::shared_ptr<Store> make_memory_store() {
  return std::make_shared<comm::KeyValues>();
}

}  // namespace tessera
