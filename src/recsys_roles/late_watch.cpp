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

// What there is to say, where that has changed. REQUIRES: mutex_ is held.
std::optional<std::string> LateWatch::judge() {
  auto slower = [](const Wait& a, const Wait& b) { return a.mean() < b.mean(); };
  const auto slowest =
      static_cast<size_t>(std::max_element(waits_.begin(), waits_.end(), slower) - waits_.begin());
  double others = 0;
  for (size_t role = 0; role < waits_.size(); ++role)
    if (role != slowest) others += waits_[role].mean() / static_cast<double>(waits_.size() - 1);
  const double mean = waits_[slowest].mean();
  const bool is_late = mean > options_.factor * others + options_.least_s;
  const auto before = std::exchange(late_, is_late ? std::optional(slowest) : std::nullopt);
  if (before == late_) return std::nullopt;
  if (!is_late) return fmt::format("{} answers as soon as the others again", roles_[*before]);
  return fmt::format("{} is slow: its answers are waited for {:.1f} ms, those of the others {:.1f} ms",
                     roles_[slowest], 1e3 * mean, 1e3 * others);
}

}  // namespace tessera::recsys_roles
