// Ranks 1 .. n with probability proportional to rank^-exponent, in constant time and memory for any n.
// Hoermann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
// ACM TOMACS 6(3), 1996.
#pragma once

#include <cmath>
#include <cstdint>

#include "recsys_data/random.h"

namespace tessera::recsys_data {

class Zipf {
 public:
  // REQUIRES: n >= 1, exponent > 0.
  Zipf(double exponent, uint64_t n)
      : exponent_(exponent),
        n_(n),
        low_(integral(1.5) - 1),
        high_(integral(static_cast<double>(n) + 0.5)),
        sure_(2 - inverse(integral(2.5) - std::pow(2.0, -exponent))) {}

  uint64_t operator()(Random& random) const {
    for (;;) {
      double area = high_ + random.uniform() * (low_ - high_);
      double x = inverse(area);
      auto rank = static_cast<uint64_t>(x + 0.5);
      if (rank < 1) rank = 1;
      if (rank > n_) rank = n_;
      auto at = static_cast<double>(rank);
      if (at - x <= sure_ || area >= integral(at + 0.5) - std::pow(at, -exponent_)) return rank;
    }
  }

 private:
  // Integral of x^-exponent from 1, written so that exponent = 1 is no special case but its limit.
  double integral(double x) const {
    double log_x = std::log(x), t = (1 - exponent_) * log_x;
    return log_x * (std::abs(t) > 1e-8 ? std::expm1(t) / t : 1 + t / 2);
  }
  double inverse(double area) const {
    double t = area * (1 - exponent_);
    if (t < -1) t = -1;
    return std::exp(area * (std::abs(t) > 1e-8 ? std::log1p(t) / t : 1 - t / 2));
  }

  double exponent_;
  uint64_t n_;
  double low_, high_, sure_;
};

}  // namespace tessera::recsys_data
