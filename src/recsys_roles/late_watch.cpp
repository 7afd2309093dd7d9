#include "recsys_roles/late_watch.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera::recsys_roles {

LateWatch::LateWatch(std::vector<std::string> roles, Say say, Options options)
    : roles_(std::move(roles)), say_(std::move(say)), options_(options), waits_(roles_.size()) {}

void LateWatch::waited(size_t role, double seconds) {
  if (roles_.size() < 2) return;
  std::optional<std::string> line;
  {
    std::lock_guard lock(mutex_);
    waits_[role].seconds += seconds;
    ++waits_[role].calls;
    auto enough = [this](const Wait& wait) { return wait.calls >= options_.calls; };
    if (!std::all_of(waits_.begin(), waits_.end(), enough)) return;
    line = judge();
    waits_.assign(waits_.size(), {});
  }
  if (line) say_(*line);
}

size_t LateWatch::slowest() const {
  auto slower = [](const Wait& a, const Wait& b) { return a.mean() < b.mean(); };
  return static_cast<size_t>(std::max_element(waits_.begin(), waits_.end(), slower) - waits_.begin());
}

double LateWatch::mean_of_others(size_t role) const {
  double sum = 0;
  for (size_t other = 0; other < waits_.size(); ++other)
    if (other != role) sum += waits_[other].mean();
  return sum / static_cast<double>(waits_.size() - 1);
}

// What there is to say, where that has changed. REQUIRES: mutex_ is held.
std::optional<std::string> LateWatch::judge() {
  if (late_)
    if (auto line = judge_late(*late_)) return line;
  const size_t role = slowest();
  const double mean = waits_[role].mean(), others = mean_of_others(role);
  if (role == late_ || mean <= options_.factor * others + options_.least_s) return std::nullopt;
  late_ = role;
  calm_ = 0;
  return fmt::format("{} is slow: its answers are waited for {:.1f} ms, those of the others {:.1f} ms",
                     roles_[role], 1e3 * mean, 1e3 * others);
}

std::optional<std::string> LateWatch::judge_late(size_t late) {
  const bool calm = waits_[late].mean() <= (options_.factor * mean_of_others(late) + options_.least_s) / 2;
  calm_ = calm ? calm_ + 1 : 0;
  if (calm_ < options_.calm) return std::nullopt;
  late_.reset();
  return fmt::format("{} answers as soon as the others again", roles_[late]);
}

}  // namespace tessera::recsys_roles
