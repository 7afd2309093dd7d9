#include "plan/recsys/zipf.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan::recsys {
namespace {

constexpr double kOneByOne = 256;  // ranks summed exactly

// Sum of term(i) for whole i in (low, high], term smooth on the scale of i.
template <class Term>
double smooth_sum(double low, double high, Term term) {
  double sum = 0;
  for (double a = low; a < high;) {
    double b = std::min(high, a * 1.25), middle = std::sqrt(a * b);
    // Simpson in log x of x f(x), then Euler-Maclaurin's half of the ends: the range is open below.
    double inside = std::log(b / a) / 6 * (a * term(a) + 4 * middle * term(middle) + b * term(b));
    sum += inside + (term(b) - term(a)) / 2;
    a = b;
  }
  return sum;
}

template <class Term>
double rank_sum(double first, double last, Term term) {
  double sum = 0, i = std::floor(first);
  for (; i <= std::min(last, first + kOneByOne); ++i) sum += term(i);
  return i - 1 < last ? sum + smooth_sum(i - 1, last, term) : sum;
}

// 1 - (1 - p)^n without loss of digits.
double hit(double p, double n) {
  return p >= 1 ? 1 : -std::expm1(n * std::log1p(-p));
}

}  // namespace

double harmonic(double count, double exponent) {
  return rank_sum(1, count, [&](double i) { return std::pow(i, -exponent); });
}

Zipf::Zipf(double ids, double exponent)
    : ids_(std::max(1.0, std::floor(ids))), exponent_(exponent), total_(harmonic(ids_, exponent)) {}

double Zipf::probability(double rank) const {
  return std::pow(rank, -exponent_) / total_;
}

double Zipf::top_share(double top) const {
  if (top < 1) return 0;
  return top >= ids_ ? 1 : harmonic(std::floor(top), exponent_) / total_;
}

template <class Term>
double Zipf::sum(double first, Term term) const {
  return first > ids_ ? 0 : rank_sum(first, ids_, [&](double rank) { return term(probability(rank)); });
}

double Zipf::distinct(double draws, double top) const {
  return sum(std::floor(top) + 1, [&](double p) { return hit(p, draws); });
}

double Zipf::repeat_share(double draws) const {
  return sum(1, [&](double p) { return p * hit(p, draws); });
}

}  // namespace tessera::plan::recsys
