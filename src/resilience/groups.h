// All groups of one generation, so that one call makes every wait of this worker fail at once: operations of
// groups, and the making of groups whose other members will never come.
//
// Threads: abort() from any; the rest as for the groups themselves.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "comm/group.h"

namespace tessera::resilience {

struct GroupsOptions {
  std::string prefix;  // unique to the generation: "g3/"
  std::string token;
  std::string bind_address = "127.0.0.1";
};

class Groups {
 public:
  Groups(std::shared_ptr<Store> store, GroupsOptions options);
  // The group of `members`, ids of any kind, of which `me` is one. Groups must not outlive this object.
  Result<std::unique_ptr<Group>> make(const std::string& name, const std::vector<int64_t>& members, int64_t me);
  // Fails what runs, what is being made and what comes later. The first call's error stays.
  void abort(const Error& error);
  std::optional<Error> aborted() const;

 private:
  class Tracked;
  class Impatient;
  mutable std::mutex mutex_;
  std::set<Group*> alive_;
  std::optional<Error> aborted_;
  std::shared_ptr<Store> store_;
  GroupsOptions options_;
};

}  // namespace tessera::resilience
