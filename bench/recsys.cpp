// What a store does per second, beside what the memory of this machine allows, and the property test at length.
//
//   build/plan-only/bench/recsys [--json FILE] [--gib N] [--operations N] [--only speed|property] [--dim N]
//
// Every figure is the best of its repeats, on one thread unless the name says otherwise; ids are uniform over a
// table of N GiB (default 2). `peer` is a bare table of this run for get (two arrays, two prefetch phases, no
// growth, locks, state or other policies: what a table could do here at all), FBGEMM's published row-wise
// Adagrad step with a dense index (14 / 6.0 / 3.7 M rows/s, one core of another machine) for get + put, and one
// thread for scaling.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/clock.h"
#include "core/machine.h"
#include "recsys/hash.h"
#include "recsys/prefetch.h"
#include "recsys/region.h"
#include "recsys/row_kernels.h"
#include "recsys/testing_oracle.h"

namespace tessera::recsys {
namespace {

constexpr size_t kBatch = 16384;
constexpr int kRepeats = 5;

struct Options {
  std::string json, only;
  double gib = 2;
  int64_t dim = 0;  // 0: 16, 64 and 128
  int64_t operations = 1'000'000;
};

std::unique_ptr<Store> make_store(int64_t dim, int64_t rows, const char* optimizer = "adagrad-row") {
  GroupOptions group{.dim = dim, .expected_rows = rows};
  group.optimizer.kind = *parse_optimizer(optimizer);
  auto store = Store::create({.groups = {group}});
  TESSERA_REQUIRE(store.ok(), "{}", store.error().message);
  return *std::move(store);
}

// ids 0 .. rows-1, mixed so that neighbours share nothing.
std::vector<uint64_t> batch_of_ids(int64_t rows, uint64_t seed) {
  std::vector<uint64_t> ids(kBatch);
  for (size_t i = 0; i < kBatch; ++i)
    ids[i] = mix64(below(mix64(seed * kBatch + i), static_cast<uint64_t>(rows)) + 77);
  return ids;
}

void fill(Store& store, int64_t dim, int64_t rows) {
  constexpr size_t kFill = 1024;  // few, so that its own buffers do not count as bytes of the rows
  std::vector<uint64_t> ids(kFill);
  std::vector<float> out(kFill * static_cast<size_t>(dim));
  for (int64_t first = 0; first < rows; first += static_cast<int64_t>(kFill)) {
    for (size_t i = 0; i < kFill; ++i) ids[i] = mix64(static_cast<uint64_t>(first) + i + 77);
    size_t count = std::min(kFill, static_cast<size_t>(rows - first));
    std::span<float> rows_of_batch = std::span(out).first(count * static_cast<size_t>(dim));
    Status status = store.get(0, std::span(ids).first(count), rows_of_batch);
    TESSERA_REQUIRE(status.ok(), "{}", status.error().message);
  }
}

double best_rate(int threads, int batches, const std::function<void(int, int)>& work) {
  double best = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    Clock::time_point start = Clock::now();
    std::vector<std::thread> crew;
    for (int t = 0; t < threads; ++t)
      crew.emplace_back([&, t] {
        for (int b = 0; b < batches; ++b) work(t, (repeat * threads + t) * batches + b);
      });
    for (std::thread& thread : crew) thread.join();
    double rows = static_cast<double>(kBatch) * batches * threads;
    best = std::max(best, rows / seconds_since(start));
  }
  return best / 1e6;
}

// Buffers of one thread, and the ids of all batches made beforehand.
struct Work {
  std::vector<std::vector<uint64_t>> ids;
  std::vector<float> rows, gradients;
};
Work make_work(int64_t dim, int64_t rows, int batches, uint64_t seed) {
  Work work;
  for (int b = 0; b < batches; ++b) work.ids.push_back(batch_of_ids(rows, seed + static_cast<uint64_t>(b)));
  work.rows.resize(kBatch * static_cast<size_t>(dim));
  work.gradients.resize(work.rows.size(), 0.01f);
  return work;
}

nlohmann::json row(const std::string& name, const char* unit, const std::string& peer_name, double ours,
                   double peer, int threads) {
  std::printf("%-38s %9.2f %-9s %-34s %9.2f  ratio %.2f\n", name.c_str(), ours, unit, peer_name.c_str(), peer,
              ours / peer);
  std::fflush(stdout);
  return {{"name", name},       {"unit", unit},         {"peer_name", peer_name},   {"ours", ours},
          {"peer", peer},       {"ratio", ours / peer}, {"higher_is_better", true}, {"threads", threads},
          {"repeats", kRepeats}};
}

// Independent random 64-byte lines of a table of that size, fetched 32 ahead and copied: the limit of any
// store.
double gather_limit(double gib) {
  auto region = Region::reserve(static_cast<int64_t>(gib * (1 << 30)));
  TESSERA_REQUIRE(region.ok(), "{}", region.error().message);
  std::memset(region->data(), 1, static_cast<size_t>(region->bytes()));
  uint64_t lines = static_cast<uint64_t>(region->bytes() / 64);
  constexpr size_t kAhead = 32;
  std::vector<uint64_t> picks(kBatch + kAhead);
  std::vector<std::byte> out(kBatch * 64);
  return best_rate(1, 100, [&](int, int batch) {
    for (size_t i = 0; i < picks.size(); ++i)
      picks[i] = below(mix64(static_cast<uint64_t>(batch) << 20 | i), lines) * 64;
    for (size_t i = 0; i < kBatch; ++i) {
      prefetch_far(region->data() + picks[i + kAhead]);
      std::memcpy(out.data() + i * 64, region->data() + picks[i], 64);
    }
  });
}

// What a table can do at all on this machine: slots of (id, row) at a load of a half, rows of their own, both
// without anything else in them, and a batch that fetches slots, then rows.
class BareTable {
 public:
  BareTable(int64_t dim, int64_t rows)
      : row_bytes_(static_cast<size_t>(dim) * sizeof(float)), num_slots_(static_cast<uint64_t>(2 * rows)) {
    auto slots = Region::reserve(static_cast<int64_t>(num_slots_ * sizeof(Slot)));
    auto values = Region::reserve(rows * static_cast<int64_t>(row_bytes_));
    TESSERA_REQUIRE(slots.ok() && values.ok(), "no address space");
    slots_ = std::move(*slots);
    values_ = std::move(*values);
    std::memset(values_.data(), 1, static_cast<size_t>(values_.bytes()));
    for (int64_t i = 0; i < rows; ++i) {
      uint64_t id = mix64(static_cast<uint64_t>(i) + 77), at = home(id);
      while (slot(at).id != 0) at = at + 1 < num_slots_ ? at + 1 : 0;
      slot(at) = {id, static_cast<uint64_t>(i)};
    }
  }
  void get(std::span<const uint64_t> ids, std::byte* out) const {
    constexpr size_t kBlock = 1024, kAhead = 32;
    const std::byte* found[kBlock];
    for (size_t first = 0; first < ids.size(); first += kBlock) {
      for (size_t i = 0; i < kAhead; ++i) prefetch_far(&slot(home(ids[first + i])));
      for (size_t i = 0; i < kBlock; ++i) {
        if (i + kAhead < kBlock) prefetch_far(&slot(home(ids[first + i + kAhead])));
        uint64_t at = home(ids[first + i]);
        while (slot(at).id != ids[first + i]) at = at + 1 < num_slots_ ? at + 1 : 0;
        found[i] = values_.data() + slot(at).row * row_bytes_;
      }
      auto fetch = [&](size_t i) { for_each_line(found[i], static_cast<int64_t>(row_bytes_), prefetch_far); };
      for (size_t i = 0; i < kAhead; ++i) fetch(i);
      for (size_t i = 0; i < kBlock; ++i) {
        if (i + kAhead < kBlock) fetch(i + kAhead);
        std::memcpy(out + (first + i) * row_bytes_, found[i], row_bytes_);
      }
    }
  }

 private:
  struct Slot {
    uint64_t id, row;
  };
  uint64_t home(uint64_t id) const { return below(mix64(id), num_slots_); }
  Slot& slot(uint64_t number) const { return reinterpret_cast<Slot*>(slots_.data())[number]; }

  size_t row_bytes_;
  uint64_t num_slots_;
  Region slots_, values_;
};

double bare_rate(int64_t dim, int64_t rows, Work& work, int batches) {
  BareTable table(dim, rows);
  return best_rate(1, batches, [&](int, int b) {
    table.get(work.ids[static_cast<size_t>(b) % work.ids.size()],
              reinterpret_cast<std::byte*>(work.rows.data()));
  });
}
double get_rate(Store& store, std::vector<Work>& work, int batches) {
  return best_rate(static_cast<int>(work.size()), batches, [&](int t, int b) {
    Work& mine = work[static_cast<size_t>(t)];
    (void)store.get(0, mine.ids[static_cast<size_t>(b) % mine.ids.size()], mine.rows).ok();
  });
}
double step_rate(Store& store, std::vector<Work>& work, int batches) {
  return best_rate(static_cast<int>(work.size()), batches, [&](int t, int b) {
    Work& mine = work[static_cast<size_t>(t)];
    auto& ids = mine.ids[static_cast<size_t>(b) % mine.ids.size()];
    (void)store.get(0, ids, mine.rows).ok();
    (void)store.put(0, ids, mine.gradients).ok();
  });
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

void measure(const Options& options, nlohmann::json& rows) {
  std::printf("random gather of 64-byte lines: %.2f M/s\n", gather_limit(options.gib));
  const double published[3] = {14, 6.0, 3.7};
  for (int d = 0; d < 3; ++d) {
    int64_t dim = d == 0 ? 16 : d == 1 ? 64 : 128;
    if (options.dim != 0 && dim != options.dim) continue;
    int64_t count = static_cast<int64_t>(options.gib * (1 << 30)) / (dim * 4 + 4);
    int64_t before = resident_bytes();
    auto store = make_store(dim, count);
    Clock::time_point start = Clock::now();
    fill(*store, dim, count);
    double seconds = seconds_since(start);
    double overhead = static_cast<double>(resident_bytes() - before) / static_cast<double>(count) -
                      static_cast<double>(dim * 4 + 4);
    std::printf(
        "dim %ld: %ld rows made at %.2f M rows/s, %.2f resident bytes per row beside values and state\n",
        static_cast<long>(dim), static_cast<long>(count), static_cast<double>(count) / seconds / 1e6, overhead);
    rows.push_back({{"name", "bytes-per-row-overhead-dim" + std::to_string(dim)},
                    {"unit", "B"},
                    {"peer_name", "allowed"},
                    {"ours", overhead},
                    {"peer", 16},
                    {"ratio", 16 / overhead},
                    {"higher_is_better", false},
                    {"threads", 1},
                    {"repeats", 1}});
    std::string suffix = "-dim" + std::to_string(dim);
    int batches = static_cast<int>(100 * 16 / dim) + 10;
    std::vector<Work> one, two;
    one.push_back(make_work(dim, count, 64, 1));
    two.push_back(make_work(dim, count, 64, 1000));
    two.push_back(make_work(dim, count, 64, 2000));
    double get1 = get_rate(*store, one, batches);
    double bare = bare_rate(dim, count, one[0], batches);
    rows.push_back(row("get" + suffix, "M rows/s", "bare table, this run", get1, bare, 1));
    double step1 = step_rate(*store, one, batches);
    rows.push_back(
        row("get+put" + suffix, "M rows/s", "FBGEMM dense index, published", step1, published[d], 1));
    if (std::thread::hardware_concurrency() < 2) continue;
    rows.push_back(
        row("get-2-threads" + suffix, "M rows/s", "one thread", get_rate(*store, two, batches), get1, 2));
    rows.push_back(
        row("get+put-2-threads" + suffix, "M rows/s", "one thread", step_rate(*store, two, batches), step1, 2));
  }
}

bool property(int64_t operations) {
  GroupOptions group{.dim = 5};
  group.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.3};
  group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = 4000};
  auto make = [&] { return *Store::create({.groups = {group}, .num_shards = 4}); };
  testing::OracleReport report = testing::Oracle(7, make).run(operations);
  testing::Oracle planted(7, make);
  planted.positional_bug = true;
  int64_t seen = planted.run(operations / 100).mismatches;
  std::printf("property: %ld operations, %ld refused, %ld evicted, %ld mismatches; with a positional put %ld\n",
              static_cast<long>(report.operations), static_cast<long>(report.refused),
              static_cast<long>(report.evicted), static_cast<long>(report.mismatches), static_cast<long>(seen));
  return report.mismatches == 0 && seen > 0;
}

int run(const Options& options) {
  double load[3] = {};
  if (::getloadavg(load, 3) < 1) load[0] = -1;
  Machine machine = this_machine();
  std::printf("%s x %ld, load average %.2f, kernels %s\n", machine.processor.c_str(),
              static_cast<long>(machine.cores), load[0], row_kernels().name);
  nlohmann::json rows = nlohmann::json::array();
  if (options.only != "property") measure(options, rows);
  bool sound = options.only == "speed" || property(options.operations);
  if (!options.json.empty())
    std::ofstream(options.json)
        << nlohmann::json{{"machine", machine.processor}, {"load_average", load[0]}, {"rows", rows}}.dump(2)
        << "\n";
  return sound ? 0 : 1;
}

}  // namespace
}  // namespace tessera::recsys

int main(int count, char** words) {
  tessera::recsys::Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    std::string name = words[i], value = words[i + 1];
    if (name == "--json") options.json = value;
    if (name == "--gib") options.gib = std::atof(value.c_str());
    if (name == "--operations") options.operations = std::atoll(value.c_str());
    if (name == "--dim") options.dim = std::atoll(value.c_str());
    if (name == "--only") options.only = value;
  }
  return tessera::recsys::run(options);
}
