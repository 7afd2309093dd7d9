#include "batching/waiting_queue.h"

#include <utility>

namespace tessera::batching {

void WaitingQueue::push(Request* request) {
  by_priority_[request->asked.priority][request->asked.tenant].emplace(request->arrival, request);
  ++size_;
  tokens_ += request->length;
}

void WaitingQueue::erase(Request* request) {
  auto level = by_priority_.find(request->asked.priority);
  if (level == by_priority_.end()) return;
  auto tenant = level->second.find(request->asked.tenant);
  if (tenant == level->second.end() || tenant->second.erase(request->arrival) == 0) return;
  --size_;
  tokens_ -= request->length;
  if (tenant->second.empty()) level->second.erase(tenant);
  if (level->second.empty()) by_priority_.erase(level);
}

Request* WaitingQueue::next(const Tenants& tenants) const {
  if (by_priority_.empty()) return nullptr;
  Request* best = nullptr;
  auto rank = [&](const Request& request) {
    return std::pair(tenants.counter(request.asked.tenant), request.arrival);
  };
  for (const auto& [name, requests] : by_priority_.begin()->second) {
    Request* first = requests.begin()->second;
    if (!best || rank(*first) < rank(*best)) best = first;
  }
  return best;
}

int64_t WaitingQueue::size_of(const std::string& tenant) const {
  int64_t size = 0;
  for (const auto& [priority, tenants] : by_priority_)
    if (auto found = tenants.find(tenant); found != tenants.end()) size += std::ssize(found->second);
  return size;
}

WaitingQueue::Claims WaitingQueue::claims(int64_t priority, const std::string& tenant) const {
  Claims claims;
  for (const auto& [level, tenants] : by_priority_) {
    if (level > priority) break;
    for (const auto& [name, requests] : tenants)
      for (const auto& [arrival, request] : requests) {
        claims.all += request->asked.max_length;
        if (name == tenant) claims.own += request->asked.max_length;
      }
  }
  return claims;
}

}  // namespace tessera::batching
