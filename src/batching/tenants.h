// One tenant that sends ten times as much as the others must not get ten times as much. Every token that is
// computed for a tenant raises its counter, and the waiting request of the tenant with the lowest counter goes
// next (the virtual token counter of Sheng et al. 2024). A tenant that comes back after a pause starts at the
// lowest counter of those present, so that a pause saves nothing up.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace tessera::batching {

class Tenants {
 public:
  void enter(const std::string& tenant);  // a request of it came
  void leave(const std::string& tenant);  // a request of it ended
  void charge(const std::string& tenant, int64_t tokens);
  int64_t counter(const std::string& tenant) const;
  int64_t num_present() const { return num_present_; }

 private:
  struct Account {
    int64_t counter = 0, requests = 0;
  };
  int64_t lowest_present() const;

  std::map<std::string, Account> accounts_;
  int64_t num_present_ = 0;
};

}  // namespace tessera::batching
