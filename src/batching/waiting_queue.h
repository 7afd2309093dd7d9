// Requests that hold no blocks, and which of them goes next: the most urgent priority first, in it the tenant
// that got least so far, of that tenant the one that came first. Threads: one at a time.
#pragma once

#include <map>

#include "batching/request.h"
#include "batching/tenants.h"

namespace tessera::batching {

class WaitingQueue {
 public:
  void push(Request* request);
  void erase(Request* request);
  Request* next(const Tenants& tenants) const;  // null when empty

  int64_t size() const { return size_; }
  int64_t tokens() const { return tokens_; }  // known tokens of all
  int64_t size_of(const std::string& tenant) const;
  // Tokens that requests as urgent as `priority` or more may grow to: of one tenant, and of all.
  struct Claims {
    int64_t own = 0, all = 0;
  };
  Claims claims(int64_t priority, const std::string& tenant) const;

  template <class Visit>
  void for_each(Visit visit) const {
    for (const auto& [priority, tenants] : by_priority_)
      for (const auto& [tenant, requests] : tenants)
        for (const auto& [arrival, request] : requests) visit(*request);
  }

 private:
  using ByArrival = std::map<int64_t, Request*>;
  std::map<int64_t, std::map<std::string, ByArrival>> by_priority_;  // no empty maps inside
  int64_t size_ = 0, tokens_ = 0;
};

}  // namespace tessera::batching
