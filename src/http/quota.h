// How much one API key may ask for in a minute. Both limits are buckets that fill up evenly: a key that rested
// may send a minute's worth at once, and then as fast as the bucket fills.
//
// Tokens are claimed before a call runs, with its longest possible answer, and what was not used comes back at
// its end, so that calls side by side cannot exceed the limit together.
// Threads: any.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "core/clock.h"
#include "http/message.h"

namespace tessera {

struct QuotaLimits {
  int64_t requests_per_minute = 0, tokens_per_minute = 0;  // 0: any number
};

class Quota;

// Tokens taken for one call. Those that settle() does not use go back at its end of life.
class TokenClaim {
 public:
  TokenClaim(std::shared_ptr<Quota> quota, int64_t tokens) : quota_(std::move(quota)), tokens_(tokens) {}
  ~TokenClaim();
  TokenClaim(const TokenClaim&) = delete;
  TokenClaim& operator=(const TokenClaim&) = delete;
  void settle(int64_t used) { used_ = used; }

 private:
  std::shared_ptr<Quota> quota_;
  int64_t tokens_, used_ = 0;
};

class Quota {
 public:
  explicit Quota(QuotaLimits limits);

  // Counts one request. Seconds until it would be taken; 0 when it was.
  double take_request(Clock::time_point now = Clock::now());
  // Seconds until so many tokens would be taken, infinite when they exceed a minute's worth; 0 when they were.
  double take_tokens(int64_t tokens, Clock::time_point now = Clock::now());
  void give_back(int64_t tokens);

  const QuotaLimits& limits() const { return limits_; }
  // x-ratelimit-limit-requests, -remaining-, -reset-, and the same for tokens, as OpenAI sends them.
  HttpHeaders headers(Clock::time_point now = Clock::now()) const;

 private:
  class Bucket {
   public:
    explicit Bucket(int64_t per_minute) : capacity_(static_cast<double>(per_minute)), level_(capacity_) {}
    double take(double amount, Clock::time_point now);
    void give_back(double amount);
    double level(Clock::time_point now) const;
    double full_in_s(Clock::time_point now) const;

   private:
    double capacity_, level_;
    Clock::time_point at_ = Clock::now();
  };

  QuotaLimits limits_;
  mutable std::mutex mutex_;
  Bucket requests_, tokens_;
};

}  // namespace tessera
