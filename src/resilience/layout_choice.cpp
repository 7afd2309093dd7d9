#include "resilience/layout_choice.h"

#include <array>
#include <optional>

#include "plan/search.h"

namespace tessera::resilience {
namespace {

constexpr int64_t kPlanned = 8;  // numbers of ranks next below the wanted one that the planner looks at

// Compared lexicographically; less is better.
using Cost = std::array<int64_t, 5>;

Cost cost_of(const Layout& layout, const Layout& wanted) {
  int64_t bubble = layout.pp - 1;
  int64_t spread = layout.ep > wanted.ep ? layout.ep - wanted.ep : wanted.ep - layout.ep;
  return {bubble + layout.tp - 1, bubble, layout.dp, spread, layout.ep};
}

std::vector<int64_t> divisors(int64_t number) {
  std::vector<int64_t> found;
  for (int64_t divisor = 1; divisor <= number; ++divisor)
    if (number % divisor == 0) found.push_back(divisor);
  return found;
}

std::vector<Layout> layouts_of(int64_t ranks, const ModelSpec& model, const Layout& wanted) {
  std::vector<Layout> all;
  for (int64_t tp : divisors(ranks)) {
    for (int64_t pp : divisors(ranks / tp)) {
      int64_t replicas = ranks / tp / pp;
      for (int64_t fsdp : divisors(replicas)) {
        for (int64_t ep : divisors(model.moe.experts > 0 ? replicas : 1)) {
          Layout layout = wanted;
          layout.tp = tp, layout.pp = pp, layout.fsdp = fsdp, layout.dp = replicas / fsdp, layout.ep = ep;
          all.push_back(layout);
        }
      }
    }
  }
  return all;
}

std::optional<Layout> best_layout(int64_t ranks, const ModelSpec& model, const Work& work,
                                  const Layout& wanted) {
  std::optional<Layout> best;
  for (const Layout& layout : layouts_of(ranks, model, wanted)) {
    if (!validate(model, work, layout).ok()) continue;
    if (!best || cost_of(layout, wanted) < cost_of(*best, wanted)) best = layout;
  }
  return best;
}

std::optional<Layout> planned_layout(int64_t ranks, const ModelSpec& model, const Work& work,
                                     const plan::Cluster& cluster) {
  plan::Request request{model, work, cluster, ranks};
  request.trainable = true;
  auto found = plan::search(request);
  if (!found) return std::nullopt;
  for (const plan::Prediction& prediction : found->ranked)
    if (validate(model, work, prediction.layout).ok()) return prediction.layout;
  return std::nullopt;
}

}  // namespace

std::map<int64_t, std::string> layouts_of_equal_work(const ModelSpec& model, const Work& work,
                                                     const Layout& wanted, const std::string& cluster) {
  auto machine = plan::load_cluster(cluster);
  std::map<int64_t, std::string> layouts;
  for (int64_t ranks = 1; ranks < wanted.processes(); ++ranks) {
    std::optional<Layout> layout;
    if (machine && ranks >= wanted.processes() - kPlanned)
      layout = planned_layout(ranks, model, work, *machine);
    if (!layout) layout = best_layout(ranks, model, work, wanted);
    if (layout) layouts[ranks] = to_string(*layout);
  }
  layouts[wanted.processes()] = to_string(wanted);
  return layouts;
}

}  // namespace tessera::resilience
