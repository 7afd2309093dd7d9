// The table behind every Store: keys, values, and waits on a condition variable. Threads: any.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>

#include "comm/group.h"

namespace tessera::comm {

class KeyValues : public Store {
 public:
  Status set(const std::string& key, const std::string& value) override;
  Result<std::string> get(const std::string& key, Deadline deadline) override;
  Result<int64_t> add(const std::string& key, int64_t amount) override;
  Result<std::optional<std::string>> try_get(const std::string& key) override;
  Result<int64_t> erase_prefix(const std::string& prefix) override;

  // Called after each change of a value, without the lock; set before the table is shared.
  void on_change(std::function<void()> call) { changed_call_ = std::move(call); }

 private:
  void tell_change();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
  std::function<void()> changed_call_;
};

}  // namespace tessera::comm
