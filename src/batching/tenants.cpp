#include "batching/tenants.h"

#include <algorithm>
#include <limits>

namespace tessera::batching {

int64_t Tenants::lowest_present() const {
  int64_t lowest = std::numeric_limits<int64_t>::max();
  for (const auto& [name, account] : accounts_)
    if (account.requests > 0) lowest = std::min(lowest, account.counter);
  return lowest;
}

void Tenants::enter(const std::string& tenant) {
  bool was_alone = num_present_ == 0;
  int64_t lowest = was_alone ? 0 : lowest_present();
  Account& account = accounts_[tenant];
  if (account.requests++ > 0) return;
  ++num_present_;
  account.counter = std::max(account.counter, lowest);
}

// Who left with a counter that the others have passed starts like a new one, and need not be remembered.
void Tenants::leave(const std::string& tenant) {
  if (--accounts_.at(tenant).requests > 0) return;
  --num_present_;
  int64_t lowest = lowest_present();
  std::erase_if(accounts_, [lowest](const auto& entry) {
    return entry.second.requests == 0 && entry.second.counter <= lowest;
  });
}

void Tenants::charge(const std::string& tenant, int64_t tokens) {
  accounts_.at(tenant).counter += tokens;
}

int64_t Tenants::counter(const std::string& tenant) const {
  auto found = accounts_.find(tenant);
  return found == accounts_.end() ? 0 : found->second.counter;
}

}  // namespace tessera::batching
