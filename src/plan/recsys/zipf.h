// Popularity of ids: the i-th most popular of N is drawn with probability i^-s / H(N, s), where H is the
// generalized harmonic number. N may be 1e11, so sums run over the first ids one by one and over geometric
// ranges of the rest (Simpson's rule in the logarithm; relative error below 1e-4). Threads: values.
#pragma once

namespace tessera::plan::recsys {

class Zipf {
 public:
  // Fewer than one id is one. REQUIRES: exponent >= 0 (0: all ids alike).
  Zipf(double ids, double exponent);

  double ids() const { return ids_; }
  double probability(double rank) const;
  // Share of draws that hit the `top` most popular ids: the hit rate of a cache that holds them.
  double top_share(double top) const;
  // Expected number of different ids among `draws`, beyond the `top` most popular ones.
  double distinct(double draws, double top = 0) const;
  // Probability that a draw repeats one of `draws` others: sum of p (1 - (1 - p)^draws).
  double repeat_share(double draws) const;

 private:
  template <class Term>
  double sum(double first, Term term) const;  // over ranks from `first` to ids
  double ids_, exponent_, total_;
};

// H(count, exponent).
double harmonic(double count, double exponent);

}  // namespace tessera::plan::recsys
