#include "http/quota.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera {

TokenClaim::~TokenClaim() {
  quota_->give_back(tokens_ - used_);
}

double Quota::Bucket::level(Clock::time_point now) const {
  double seconds = std::chrono::duration<double>(now - at_).count();
  return std::min(capacity_, level_ + std::max(0.0, seconds) * capacity_ / 60);
}

double Quota::Bucket::take(double amount, Clock::time_point now) {
  if (capacity_ == 0) return 0;
  if (amount > capacity_) return std::numeric_limits<double>::infinity();
  level_ = level(now);
  at_ = now;
  if (level_ < amount) return (amount - level_) * 60 / capacity_;
  level_ -= amount;
  return 0;
}

void Quota::Bucket::give_back(double amount) {
  level_ = std::min(capacity_, level_ + amount);
}

double Quota::Bucket::full_in_s(Clock::time_point now) const {
  return (capacity_ - level(now)) * 60 / capacity_;
}

Quota::Quota(QuotaLimits limits)
    : limits_(limits), requests_(limits.requests_per_minute), tokens_(limits.tokens_per_minute) {}

double Quota::take_request(Clock::time_point now) {
  std::lock_guard lock(mutex_);
  return requests_.take(1, now);
}

double Quota::take_tokens(int64_t tokens, Clock::time_point now) {
  std::lock_guard lock(mutex_);
  return tokens_.take(static_cast<double>(tokens), now);
}

void Quota::give_back(int64_t tokens) {
  std::lock_guard lock(mutex_);
  tokens_.give_back(static_cast<double>(tokens));
}

HttpHeaders Quota::headers(Clock::time_point now) const {
  std::lock_guard lock(mutex_);
  HttpHeaders out;
  auto add = [&](const char* what, int64_t limit, const Bucket& bucket) {
    if (limit == 0) return;
    out.emplace_back(fmt::format("x-ratelimit-limit-{}", what), fmt::format("{}", limit));
    out.emplace_back(fmt::format("x-ratelimit-remaining-{}", what),
                     fmt::format("{}", static_cast<int64_t>(bucket.level(now))));
    out.emplace_back(fmt::format("x-ratelimit-reset-{}", what), fmt::format("{:.3f}s", bucket.full_in_s(now)));
  };
  add("requests", limits_.requests_per_minute, requests_);
  add("tokens", limits_.tokens_per_minute, tokens_);
  return out;
}

}  // namespace tessera
