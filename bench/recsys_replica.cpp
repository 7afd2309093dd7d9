// How long one get of 26 rows takes from a serving replica that follows deltas, on one core.
//
//   build/plan-only/bench/recsys_replica [--rows N] [--delta N] [--seconds S] [--rate R]
//
// A trained store of N rows (float32 x 16, row-wise Adagrad) is copied to a replica; then a thread applies a
// delta of --delta rows, over and over (each second one), while this thread gets 26 rows by Zipf's law, --rate
// times a second (0: as fast as it can). Both threads share one core. Target: p99 of at most 200 us.
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "core/clock.h"
#include "core/result.h"
#include "recsys/hash.h"
#include "recsys/replica.h"
#include "recsys_data/zipf.h"

namespace tessera::recsys {
namespace {

constexpr size_t kDim = 16, kIds = 26, kBlock = 16384;

void check(const Status& status) {
  TESSERA_REQUIRE(status.ok(), "{}", status.error().message);
}

// Touches rows [first, last) of the store.
void touch(Store& store, uint64_t first, uint64_t last) {
  std::vector<uint64_t> ids;
  std::vector<float> rows;
  for (; first < last; first += kBlock) {
    ids.resize(std::min<uint64_t>(kBlock, last - first));
    rows.resize(ids.size() * kDim);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = mix64(first + i);
    check(store.get(0, ids, rows));
    auto count = store.put(0, ids, rows);
    TESSERA_REQUIRE(count.ok(), "{}", count.error().message);
  }
}

void stay_on_one_core() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(::sched_getcpu(), &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

struct Latencies {
  std::vector<double> us;
  double at(double share) {
    auto place = us.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(us.size() - 1));
    std::nth_element(us.begin(), place, us.end());
    return *place;
  }
};

Latencies measure(const Replica& replica, uint64_t rows, double seconds, double rate) {
  recsys_data::Zipf zipf(1.05, rows);
  recsys_data::Random random(3);
  std::vector<uint64_t> ids(kIds);
  std::vector<float> out(kIds * kDim);
  Latencies latencies;
  Clock::time_point begin = Clock::now();
  for (double now = 0; now < seconds; now = seconds_since(begin)) {
    for (uint64_t& id : ids) id = mix64(zipf(random));
    if (rate > 0) {
      double due = static_cast<double>(latencies.us.size()) / rate;
      if (due > now) std::this_thread::sleep_for(std::chrono::duration<double>(due - now));
    }
    Clock::time_point start = Clock::now();
    check(replica.get(0, ids, out));
    latencies.us.push_back(1e6 * seconds_since(start));
  }
  return latencies;
}

}  // namespace
}  // namespace tessera::recsys

int main(int count, char** words) {
  using namespace tessera::recsys;
  std::map<std::string, std::string> given{
      {"--rows", "8000000"}, {"--delta", "400000"}, {"--seconds", "10"}, {"--rate", "0"}};
  for (int i = 1; i + 1 < count; i += 2) given[words[i]] = words[i + 1];
  const uint64_t rows = std::stoull(given["--rows"]), delta = std::stoull(given["--delta"]);
  auto folder = std::filesystem::temp_directory_path() / ("tessera-replica-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  GroupOptions group{.dim = kDim};
  group.optimizer.kind = *parse_optimizer("adagrad-row");
  auto replica = *Replica::create({group});
  constexpr int kDeltas = 12;
  {
    auto store = *Store::create({.groups = {group}});
    touch(*store, 0, rows);
    for (int k = 0; k <= kDeltas; ++k) {
      if (k > 0)
        touch(*store, rows / kDeltas * static_cast<uint64_t>(k - 1),
              rows / kDeltas * static_cast<uint64_t>(k - 1) + delta);
      auto saved = store->save(folder / std::to_string(k),
                               k == 0 ? Store::SnapshotKind::full : Store::SnapshotKind::delta);
      TESSERA_REQUIRE(saved.ok(), "{}", saved.error().message);
    }
  }
  check(replica->apply(0, folder / "0"));
  stay_on_one_core();
  auto report = [&](const char* name, Latencies latencies) {
    std::printf("%s: %zu gets of 26 rows, p50 %.1f us, p99 %.1f us, p99.9 %.1f us, largest %.0f us\n", name,
                latencies.us.size(), latencies.at(0.5), latencies.at(0.99), latencies.at(0.999),
                latencies.at(1));
  };
  const double seconds = std::stod(given["--seconds"]), rate = std::stod(given["--rate"]);
  report("alone", measure(*replica, rows, seconds, rate));
  std::atomic<bool> ends{false};
  std::atomic<int> applied{0};
  double apply_s = 0;
  std::thread follower([&] {
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 19);  // as the server's
    for (int k = 1; k <= kDeltas && !ends; ++k) {
      tessera::Clock::time_point start = tessera::Clock::now();
      check(replica->apply(0, folder / std::to_string(k)));
      apply_s = std::max(apply_s, tessera::seconds_since(start));
      ++applied;
      while (!ends && tessera::seconds_since(start) < 1)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  report("beside deltas", measure(*replica, rows, seconds, rate));
  ends = true;
  follower.join();
  std::printf("%d deltas of %llu rows, the slowest applied in %.2f s\n", applied.load(),
              static_cast<unsigned long long>(delta), apply_s);
  std::filesystem::remove_all(folder);
  return 0;
}
