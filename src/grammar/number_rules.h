// Numbers between bounds, or multiples of a number, as they are written in JSON: digit by digit, each compared
// with those of the bounds. Threads: any.
#pragma once

#include <optional>

#include "chat/value.h"
#include "grammar/grammar.h"

namespace tessera::grammar {

// A number in decimal digits: [-]whole.fraction, without zeros in front of `whole` or behind `fraction`.
struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction;

  bool is_zero() const { return whole == "0" && fraction.empty(); }
  Decimal negated() const;
};
// As JSON writes it. Nothing for infinities and for what has too many digits to be a bound.
std::optional<Decimal> to_decimal(const chat::Value& number);
int compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal at;
  bool included = true;
};

struct NumberRules {
  std::optional<Bound> least, most;
  std::optional<Decimal> multiple_of;  // above zero
  bool whole = false;                  // no fraction is written

  bool restrict_nothing() const { return !least && !most && !multiple_of; }
  // What satisfies both. Throws std::invalid_argument for multiples that have no small common one.
  void add(const NumberRules& other);
  bool takes(const Decimal& number) const;
};

// Numbers are written with at most 15 digits and without exponents. Throws std::invalid_argument when a
// multiple is too fine or too large for it.
void write_numbers(Grammar& grammar, int from, int to, const NumberRules& rules);

}  // namespace tessera::grammar
