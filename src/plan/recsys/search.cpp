#include "plan/recsys/search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <sstream>
#include <tuple>

#include "core/nearest.h"
#include "plan/assignments.h"

namespace tessera::plan::recsys {
namespace {

// 1, 2, 3, 4, 6, 8, 12, ... and the most.
std::vector<double> counts_up_to(double most) {
  std::vector<double> counts;
  for (double count = 1; count < most; count *= 2) {
    counts.push_back(count);
    if (count >= 2 && count * 1.5 < most) counts.push_back(count * 1.5);
  }
  counts.push_back(most);
  return counts;
}

std::vector<double> powers_of_two(double least, double most) {
  std::vector<double> powers;
  for (double power = least; power <= most; power *= 2) powers.push_back(power);
  return powers;
}

constexpr double kNothing = 1e300;

struct Axes {
  std::vector<double> servers, workers, trainers, batches, staleness, wires, caches;
  std::vector<Sharding> shardings;
  double size() const {
    return static_cast<double>(servers.size() * workers.size() * trainers.size() * batches.size() *
                               staleness.size() * wires.size() * caches.size() * shardings.size());
  }
};

Axes axes_of(const Request& request) {
  const Pool& devices = request.pools.trainers;
  Axes axes{.servers = counts_up_to(request.pools.servers.hosts),
            .workers = counts_up_to(request.pools.workers.hosts),
            .batches = request.batch > 0 ? std::vector{request.batch} : powers_of_two(256, request.max_batch),
            .staleness = powers_of_two(1, request.max_staleness),
            .wires = {4, 2, 1},
            .caches = {0, 0.5},
            .shardings = {Sharding::rows, Sharding::tables}};
  for (double count : counts_up_to(devices.devices_per_host)) axes.trainers.push_back(count);
  for (double hosts : counts_up_to(devices.hosts))
    if (hosts > 1) axes.trainers.push_back(hosts * devices.devices_per_host);
  return axes;
}

class Search {
 public:
  explicit Search(const Request& request)
      : request_(request),
        tables_(popularity(request.work)),
        held_(storage(request.work, tables_, request.engine)) {}

  Outcome run() {
    outcome_.storage = held_;
    if (request_.layout)
      try_layout(*request_.layout);
    else
      walk(axes_of(request_));
    rank();
    return std::move(outcome_);
  }

 private:
  void walk(const Axes& axes) {
    Layout layout;
    for (double batch : axes.batches)
      for (double cache : axes.caches)
        for (double servers : axes.servers)
          for (Sharding sharding : axes.shardings)
            for (double workers : axes.workers)
              for (double trainers : axes.trainers)
                for (double staleness : axes.staleness)
                  for (double wire : axes.wires) {
                    // A cache serves rows that others may have changed: never in synchronous training.
                    if (cache > 0 && staleness == 1) continue;
                    layout = {.servers = servers,
                              .workers = workers,
                              .trainers = trainers,
                              .batch = batch,
                              .staleness = staleness,
                              .wire_bytes = wire,
                              .cache_share = cache,
                              .sharding = sharding};
                    try_layout(layout);
                  }
    walk_device_tables(axes);
  }

  void walk_device_tables(const Axes& axes) {
    for (double batch : axes.batches)
      for (Sharding sharding : axes.shardings)
        for (double trainers : axes.trainers)
          for (double staleness : axes.staleness)
            for (double wire : axes.wires)
              try_layout({.servers = 0,
                          .workers = 0,
                          .trainers = trainers,
                          .batch = batch,
                          .staleness = staleness,
                          .wire_bytes = wire,
                          .sharding = sharding,
                          .placement = Placement::trainers});
  }

  void try_layout(const Layout& layout) {
    ++outcome_.space;
    const BatchIds& ids = ids_of(layout.batch, layout.cache_share * request_.pools.workers.memory_bytes);
    Candidate one{.layout = layout,
                  .step = step(request_.work, request_.pools, request_.engine, layout, ids, held_)};
    ++outcome_.evaluated;
    note_memory(one);
    if (!one.step.fits) {
      ++outcome_.pruned;
      return;
    }
    fastest_ = std::max(fastest_, one.step.samples_per_s);
    if (one.step.samples_per_s < request_.samples_per_s) return;
    double hours = 1e9 / one.step.samples_per_s / 3600;
    one.usd_per_billion_samples = one.step.usd_per_hour * hours;
    one.kwh_per_billion_samples = one.step.watts * hours / 1000;
    auto [place, fresh] = best_.try_emplace({layout.placement, layout.trainers, layout.batch}, one);
    if (!fresh && better(one, place->second)) place->second = std::move(one);
  }

  void note_memory(const Candidate& one) {
    Misses& least = one.layout.placement == Placement::trainers ? on_devices_ : on_servers_;
    least.server = std::min(least.server, one.step.server_bytes);
    least.trainer = std::min(least.trainer, one.step.trainer.total());
  }

  // Rates within a thousandth are alike; then the cheaper layout wins, then the fresher one, then wider values.
  bool better(const Candidate& a, const Candidate& b) const {
    double x = merit(a), y = merit(b);
    if (std::abs(x / y - 1) > 1e-3) return x < y;
    if (std::abs(a.usd_per_billion_samples / b.usd_per_billion_samples - 1) > 1e-3)
      return a.usd_per_billion_samples < b.usd_per_billion_samples;
    if (a.layout.staleness != b.layout.staleness) return a.layout.staleness < b.layout.staleness;
    return a.layout.wire_bytes > b.layout.wire_bytes;
  }
  double merit(const Candidate& one) const {
    if (request_.objective == Objective::cost) return one.usd_per_billion_samples;
    return request_.objective == Objective::energy ? one.kwh_per_billion_samples : 1 / one.step.samples_per_s;
  }

  const BatchIds& ids_of(double batch, double cache_bytes) {
    auto [place, fresh] = ids_.try_emplace({batch, cache_bytes});
    if (fresh) place->second = batch_ids(request_.work, tables_, batch, cache_bytes);
    return place->second;
  }

  void rank() {
    for (auto& [key, one] : best_) outcome_.ranked.push_back(std::move(one));
    std::sort(outcome_.ranked.begin(), outcome_.ranked.end(),
              [&](const Candidate& a, const Candidate& b) { return merit(a) < merit(b); });
    outcome_.found = outcome_.ranked;
    if (outcome_.ranked.size() > static_cast<size_t>(request_.top))
      outcome_.ranked.resize(static_cast<size_t>(request_.top));
    for (Candidate& one : outcome_.ranked) {
      one.ids = ids_of(one.layout.batch, one.layout.cache_share * request_.pools.workers.memory_bytes);
      one.stale_share = stale_share(one.layout);
    }
    if (outcome_.ranked.empty()) explain();
  }

  double stale_share(const Layout& layout) const {
    double in_flight = layout.batch * std::max(0.0, layout.staleness * layout.trainers - layout.trainers);
    double sum = 0, ids = 0;
    for (size_t i = 0; i < tables_.size(); ++i) {
      double pooling = request_.work.model.tables[i].pooling;
      sum += pooling * tables_[i].repeat_share(in_flight * pooling), ids += pooling;
    }
    return sum / ids;
  }

  void explain() {
    if (fastest_ > 0) {
      outcome_.infeasible.push_back(
          {"throughput of the whole cluster", request_.samples_per_s, fastest_, "samples/s"});
      return;
    }
    double server = kMemoryUse * request_.pools.servers.memory_bytes;
    double device = kMemoryUse * request_.pools.trainers.device_memory_bytes;
    auto miss = [&](const char* what, double needed, double room) {
      if (needed > room && needed < kNothing)
        outcome_.infeasible.push_back({what, needed / 1e9, room / 1e9, "GB"});
    };
    miss("memory of the fullest embedding server, rows resident", on_servers_.server, server);
    miss("memory of a trainer's device, rows on servers", on_servers_.trainer, device);
    miss("memory of the fullest trainer's device, rows on devices", on_devices_.trainer, device);
  }

  const Request& request_;
  std::vector<Zipf> tables_;
  Storage held_;
  std::map<std::pair<double, double>, BatchIds> ids_;
  std::map<std::tuple<Placement, double, double>, Candidate> best_;
  // The least that any layout needs of each memory.
  struct Misses {
    double server = kNothing, trainer = kNothing;
  };
  Misses on_servers_, on_devices_;
  double fastest_ = 0;
  Outcome outcome_;
};

Status check(const Request& request) {
  if (request.work.replicas < 1) return invalid("--replicas {:g}: expected at least 1", request.work.replicas);
  if (request.max_staleness < 1)
    return invalid("--staleness {:g}: expected at least 1 batch", request.max_staleness);
  if (!request.layout) return {};
  const Layout& layout = *request.layout;
  auto within = [](const char* role, double asked, double present) -> Status {
    if (asked >= 1 && asked <= present) return {};
    return invalid("--layout {}={:g}: expected 1 to {:g}, what the cluster has", role, asked, present);
  };
  const Pools& pools = request.pools;
  TESSERA_RETURN_IF_ERROR(
      within("trainers", layout.trainers, pools.trainers.hosts * pools.trainers.devices_per_host));
  if (layout.placement == Placement::trainers) {
    if (layout.cache_share > 0)
      return invalid("--layout: cache={:g} with placement=trainers: there are no workers to hold it",
                     layout.cache_share);
    return {};
  }
  TESSERA_RETURN_IF_ERROR(within("servers", layout.servers, pools.servers.hosts));
  TESSERA_RETURN_IF_ERROR(within("workers", layout.workers, pools.workers.hosts));
  if (layout.cache_share > 0 && layout.staleness == 1)
    return invalid(
        "--layout: cache={:g} with staleness=1: a worker's cache serves stale rows, synchronous training "
        "allows none",
        layout.cache_share);
  return {};
}

}  // namespace

Result<Objective> parse_objective(const std::string& text) {
  if (text == "throughput") return Objective::throughput;
  if (text == "cost") return Objective::cost;
  if (text == "energy") return Objective::energy;
  return invalid("--objective '{}': expected throughput, cost or energy{}", text,
                 did_you_mean(text, {"throughput", "cost", "energy"}));
}

Result<Outcome> search(const Request& request) {
  auto started = std::chrono::steady_clock::now();
  TESSERA_RETURN_IF_ERROR(check(request));
  Outcome outcome = Search(request).run();
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return outcome;
}

Result<Layout> parse_layout(const std::string& text) {
  Layout layout;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    if (part == "sharding=rows" || part == "sharding=tables")
      layout.sharding = part.ends_with("rows") ? Sharding::rows : Sharding::tables;
    else if (part == "placement=servers" || part == "placement=trainers")
      layout.placement = part.ends_with("=servers") ? Placement::servers : Placement::trainers;
    else if (part == "dense=sync" || part == "dense=async")
      layout.dense_sync = part.ends_with("=sync");
    else
      TESSERA_RETURN_IF_ERROR(assign_numbers("--layout", part,
                                             {{"servers", &layout.servers, 1},
                                              {"workers", &layout.workers, 1},
                                              {"trainers", &layout.trainers, 1},
                                              {"batch", &layout.batch, 1, 65536},
                                              {"staleness", &layout.staleness, 1},
                                              {"wire", &layout.wire_bytes, 0.5, 4},
                                              {"cache", &layout.cache_share, 0, 1}}));
  }
  if (layout.placement == Placement::trainers) layout.servers = layout.workers = 0;
  return layout;
}

std::string to_string(const Layout& layout) {
  std::string text = "placement=trainers";
  if (layout.placement == Placement::servers)
    text = fmt::format("servers={:g},workers={:g}", layout.servers, layout.workers);
  text += fmt::format(",trainers={:g},batch={:g},staleness={:g},wire={:g}", layout.trainers, layout.batch,
                      layout.staleness, layout.wire_bytes);
  if (layout.cache_share > 0) text += fmt::format(",cache={:g}", layout.cache_share);
  if (layout.sharding == Sharding::tables) text += ",sharding=tables";
  return layout.dense_sync ? text : text + ",dense=async";
}

}  // namespace tessera::plan::recsys
