#include "grammar/number_rules.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>

namespace tessera::grammar {

namespace {

// Decimals of so many digits and the doubles that they are read as have the same order.
constexpr size_t kMaxDigits = 15;
// Without a bound: enough for amounts and measures; whole numbers may be identifiers or times.
constexpr size_t kUsualWhole = 9, kUsualFraction = 6;
constexpr int64_t kMaxMultiple = 1000;

// digits * 10^exponent
Decimal normal(bool negative, std::string digits, int64_t exponent) {
  while (digits.size() > 1 && digits.back() == '0') digits.pop_back(), ++exponent;
  if (exponent > 0) digits.append(static_cast<size_t>(exponent), '0'), exponent = 0;
  auto behind = static_cast<size_t>(-exponent);
  if (digits.size() <= behind) digits.insert(0, behind - digits.size() + 1, '0');
  Decimal out{negative, digits.substr(0, digits.size() - behind), digits.substr(digits.size() - behind)};
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size() - 1));
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  out.negative &= !out.is_zero();
  return out;
}

// A multiple as the whole number `factor` over 10^places.
struct Step {
  int64_t factor, places;
};
Step step_of(const Decimal& multiple) {
  auto places = std::ssize(multiple.fraction);
  if (std::ssize(multiple.whole) + places > 6)
    throw std::invalid_argument("'multipleOf' has more than 6 digits");
  return {std::stoll(multiple.whole + multiple.fraction), places};
}

int64_t power_of_ten(int64_t exponent) {
  int64_t out = 1;
  for (; exponent > 0; --exponent) out *= 10;
  return out;
}

Decimal common_multiple(const Decimal& a, const Decimal& b) {
  Step x = step_of(a), y = step_of(b);
  int64_t places = std::max(x.places, y.places);
  int64_t common =
      std::lcm(x.factor * power_of_ten(places - x.places), y.factor * power_of_ten(places - y.places));
  return normal(false, std::to_string(common), -places);
}

// Numbers without a sign between two bounds, and a multiple: one automaton for each count of whole digits.
class Magnitudes {
 public:
  Magnitudes(Grammar& grammar, int to, std::optional<Bound> least, std::optional<Bound> most,
             const NumberRules& rules)
      : g_(grammar), to_(to), least_(std::move(least)), most_(std::move(most)) {
    size_t longest = std::max(least_ ? least_->at.whole.size() + 1 : 0, rules.whole ? kMaxDigits : kUsualWhole);
    whole_most_ = most_ ? most_->at.whole.size() : longest;
    whole_most_ = std::min(whole_most_, rules.whole ? kMaxDigits + 3 : kMaxDigits);
    fraction_most_ = rules.whole ? 0
                                 : std::min(kMaxDigits - std::min(whole_most_, kMaxDigits),
                                            most_ ? kMaxDigits - 3 : kUsualFraction);
    if (!rules.multiple_of) return;
    step_ = step_of(*rules.multiple_of);
    if (step_.factor > kMaxMultiple)
      throw std::invalid_argument("'multipleOf' is above 1000, or finer than its size allows");
    fraction_most_ = std::min(fraction_most_, static_cast<size_t>(step_.places));
  }

  void write(int from) {
    for (whole_ = least_ ? least_->at.whole.size() : 1; whole_ <= whole_most_; ++whole_) {
      tight_states_.clear();
      bool tight_low = least_ && whole_ == least_->at.whole.size(),
           tight_high = most_ && whole_ == most_->at.whole.size();
      g_.skip(from, state_of({0, tight_low, tight_high, 0, false, whole_ > 1}));
    }
  }

 private:
  struct Place {
    size_t digits;               // behind so many
    bool tight_low, tight_high;  // all of them are those of the bound
    int64_t rest;                // of the number so far over the multiple
    bool behind_point;           // and no digit yet
    bool leading;                // no zero
    auto operator<=>(const Place&) const = default;
  };

  static char digit_of(const Decimal& number, size_t place) {
    if (place < number.whole.size()) return number.whole[place];
    place -= number.whole.size();
    return place < number.fraction.size() ? number.fraction[place] : '0';
  }
  // Is nothing left of the bound behind `place`?
  static bool is_over(const Decimal& number, size_t place) {
    for (size_t i = place; i < number.whole.size() + number.fraction.size(); ++i)
      if (digit_of(number, i) != '0') return false;
    return true;
  }

  bool may_end(const Place& at) const {
    if (at.digits < whole_ || at.behind_point) return false;
    if (at.tight_low && !(is_over(least_->at, at.digits) && least_->included)) return false;
    if (at.tight_high && is_over(most_->at, at.digits) && !most_->included) return false;
    auto missing = step_.places - static_cast<int64_t>(at.digits - whole_);
    return step_.factor == 0 || at.rest * (power_of_ten(missing) % step_.factor) % step_.factor == 0;
  }

  // Places far from the bounds are the same for all counts of whole digits: what is left to write decides.
  int state_of(const Place& at) {
    auto& known = at.tight_low || at.tight_high ? tight_states_ : states_;
    Place key = at;
    key.digits += whole_most_ - whole_;
    auto [found, is_new] = known.emplace(key, 0);
    if (!is_new) return found->second;
    int state = g_.new_state();
    found->second = state;
    if (may_end(at)) g_.skip(state, to_);
    if (at.digits == whole_ && !at.behind_point && fraction_most_ > 0) {
      Place behind = at;
      behind.behind_point = true;
      g_.skip(g_.literal(state, "."), state_of(behind));
      return state;
    }
    bool has_point = at.digits > whole_ || at.behind_point;
    if (at.digits >= whole_ + fraction_most_ || (at.digits == whole_ && !has_point)) return state;
    for (char digit = at.leading ? '1' : '0'; digit <= '9'; ++digit) write_digit(at, state, digit);
    return state;
  }

  void write_digit(const Place& at, int state, char digit) {
    char low = at.tight_low ? digit_of(least_->at, at.digits) : '0',
         high = at.tight_high ? digit_of(most_->at, at.digits) : '9';
    if (digit < low || digit > high) return;
    Place next{at.digits + 1, at.tight_low && digit == low, at.tight_high && digit == high, 0, false, false};
    if (step_.factor > 0) next.rest = (at.rest * 10 + (digit - '0')) % step_.factor;
    auto byte = static_cast<unsigned char>(digit);
    g_.edge(state, byte, byte, state_of(next));
  }

  Grammar& g_;
  int to_;
  std::optional<Bound> least_, most_;
  size_t whole_most_ = 0, fraction_most_ = 0, whole_ = 1;
  Step step_{0, 0};
  std::map<Place, int> states_, tight_states_;
};

}  // namespace

Decimal Decimal::negated() const {
  Decimal out = *this;
  out.negative = !negative && !is_zero();
  return out;
}

std::optional<Decimal> to_decimal(const chat::Value& number) {
  if (number.is_integer()) {
    std::string text = std::to_string(number.integer());
    bool negative = text[0] == '-';
    return normal(negative, text.substr(negative), 0);
  }
  if (!number.is_float() || !std::isfinite(number.number())) return std::nullopt;
  std::string text = chat::float_text(number.number());
  bool negative = text[0] == '-';
  text.erase(0, negative);
  size_t e = text.find_first_of("eE");
  int64_t exponent = e == std::string::npos ? 0 : std::stoll(text.substr(e + 1));
  text.resize(std::min(e, text.size()));
  size_t point = text.find('.');
  if (point != std::string::npos) {
    exponent -= std::ssize(text) - static_cast<int64_t>(point) - 1;
    text.erase(point, 1);
  }
  return std::abs(exponent) > 400 ? std::nullopt : std::optional(normal(negative, text, exponent));
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int sign = a.negative ? -1 : 1;
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -sign : sign;
  int whole = a.whole.compare(b.whole), fraction = a.fraction.compare(b.fraction);
  return sign * (whole != 0 ? whole : fraction);
}

void NumberRules::add(const NumberRules& other) {
  auto tighter = [](std::optional<Bound>& own, const std::optional<Bound>& bound, int direction) {
    if (!bound) return;
    int order = own ? direction * compare(bound->at, own->at) : 1;
    if (order > 0) own = bound;
    if (order == 0) own->included &= bound->included;
  };
  tighter(least, other.least, 1);
  tighter(most, other.most, -1);
  whole |= other.whole;
  if (other.multiple_of)
    multiple_of = multiple_of ? common_multiple(*multiple_of, *other.multiple_of) : *other.multiple_of;
}

bool NumberRules::takes(const Decimal& number) const {
  auto inside = [&](const std::optional<Bound>& bound, int direction) {
    if (!bound) return true;
    int order = direction * compare(number, bound->at);
    return order > 0 || (order == 0 && bound->included);
  };
  if (!inside(least, 1) || !inside(most, -1)) return false;
  if (whole && !number.fraction.empty()) return false;
  if (!multiple_of) return true;
  Step step = step_of(*multiple_of);
  if (std::ssize(number.fraction) > step.places) return false;
  std::string digits = number.whole + number.fraction;
  digits.append(static_cast<size_t>(step.places) - number.fraction.size(), '0');
  int64_t rest = 0;
  for (char digit : digits) rest = (rest * 10 + (digit - '0')) % step.factor;
  return rest == 0;
}

void write_numbers(Grammar& grammar, int from, int to, const NumberRules& rules) {
  Bound zero{.at = {}, .included = true};
  bool reaches_up =
      !rules.most || !(rules.most->at.negative || (rules.most->at.is_zero() && !rules.most->included));
  if (reaches_up) {
    auto least = rules.least && !rules.least->at.negative ? rules.least : std::optional(zero);
    Magnitudes(grammar, to, least, rules.most, rules).write(from);
  }
  bool reaches_down = !rules.least || rules.least->at.negative;
  if (!reaches_down) return;
  auto mirrored = [](const Bound& bound) { return Bound{bound.at.negated(), bound.included}; };
  zero.included = false;  // "-0" is not written
  auto least =
      rules.most && rules.most->at.negative ? std::optional(mirrored(*rules.most)) : std::optional(zero);
  auto most = rules.least ? std::optional(mirrored(*rules.least)) : std::nullopt;
  Magnitudes(grammar, to, least, most, rules).write(grammar.literal(from, "-"));
}

}  // namespace tessera::grammar
