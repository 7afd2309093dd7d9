// The hosts of a job, each known by its supervisor: it beats, says which roles it runs, and leaves in order.
// One that stops beating is gone with all its processes and memory. Who gives it up says so, so that a host
// which was only paused ends its roles instead of going on beside those that took their place.
//
//   recsys-hosts/count     supervisors that ever joined; the first is 1
//   recsys-hosts/N/beat    a counter
//   recsys-hosts/N/roles   "server:1,replica:0"
//   recsys-hosts/N/end     "left" or "given up"
//
// Threads: one.
#pragma once

#include <map>
#include <vector>

#include "core/clock.h"
#include "recsys_roles/role.h"

namespace tessera::recsys_roles {

class Hosts {
 public:
  // Joins. `silence_s`: without a beat, a host is gone. Errors: of the store.
  static Result<Hosts> join(std::shared_ptr<Store> store, double silence_s);

  int64_t number() const { return number_; }
  Status say_roles(const std::vector<RoleName>& roles);
  void beat();  // to be called often
  void leave();
  bool given_up();

  struct Host {
    int64_t number;
    std::vector<RoleName> roles;
  };
  // Others that fell silent since the last call; they are given up.
  std::vector<Host> newly_lost();
  // The host that runs a role now; 0: none.
  int64_t host_of(const RoleName& role);

 private:
  struct Sight {
    std::string beat;
    Clock::time_point at;
    bool ended = false;
  };
  Hosts(std::shared_ptr<Store> store, double silence_s, int64_t number)
      : store_(std::move(store)), silence_s_(silence_s), number_(number) {}
  bool has_ended(int64_t host);
  std::vector<RoleName> roles_of(int64_t host);
  bool is_silent(int64_t host, Sight& sight);

  std::shared_ptr<Store> store_;
  double silence_s_;
  int64_t number_;
  Clock::time_point beaten_at_;
  std::map<int64_t, Sight> seen_;
};

}  // namespace tessera::recsys_roles
