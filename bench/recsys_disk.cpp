// Training steps on a table whose touched rows are a multiple of its memory, beside the same steps in memory.
//
//   build/release/bench/recsys_disk --folder DIR [--rows N] [--multiple M] [--zipf S] [--batches B] [--dim D]
//   [--eviction lru|lfu]
//
// Rows are D float32 (16) with row-wise Adagrad; a step gets and puts 16,384 ids by Zipf's law. All rows are
// touched first. DIR should lie on a real disk; reads pass the page cache by (O_DIRECT) unless --cached 1.
#include <cstdio>
#include <map>
#include <string>

#include "core/clock.h"
#include "core/result.h"
#include "recsys/hash.h"
#include "recsys/store.h"
#include "recsys_data/zipf.h"

namespace tessera::recsys {
namespace {

int64_t dim = 16;
constexpr size_t kBatch = 16384;

std::unique_ptr<Store> make(int64_t budget_bytes, const DiskOptions& disk, EvictionOptions::Kind kind) {
  GroupOptions group{.dim = dim};
  group.optimizer.kind = *parse_optimizer("adagrad-row");
  if (budget_bytes > 0) group.eviction = {.kind = kind, .budget_bytes = budget_bytes};
  auto store = Store::create({.groups = {group}, .disk = disk});
  TESSERA_REQUIRE(store.ok(), "{}", store.error().message);
  return *std::move(store);
}

void check(const Status& status) {
  TESSERA_REQUIRE(status.ok(), "{}", status.error().message);
}

void touch_all(Store& store, int64_t rows) {
  std::vector<uint64_t> ids(kBatch);
  std::vector<float> out(kBatch * static_cast<size_t>(dim));
  for (int64_t first = 0; first < rows; first += static_cast<int64_t>(kBatch)) {
    for (size_t i = 0; i < kBatch; ++i) ids[i] = mix64(static_cast<uint64_t>(first) + i + 1);
    check(store.get(0, ids, out));
  }
}

struct Rate {
  double rows_per_s = 0, returned = 0, spilled = 0;  // of each row got
};
Rate steps(Store& store, int64_t rows, double exponent, int64_t batches) {
  recsys_data::Zipf zipf(exponent, static_cast<uint64_t>(rows));
  recsys_data::Random random(1);
  std::vector<uint64_t> ids(kBatch);
  std::vector<float> out(kBatch * static_cast<size_t>(dim)),
      gradients(kBatch * static_cast<size_t>(dim), 0.01f);
  double seconds = 0;
  GroupStats before;
  for (int64_t b = 0; b < batches; ++b) {
    if (b == batches / 4) before = store.stats(0);
    for (uint64_t& id : ids) id = mix64(zipf(random));
    Clock::time_point start = Clock::now();
    check(store.get(0, ids, out));
    auto count = store.put(0, ids, gradients, {.step = static_cast<uint64_t>(b) + 1});
    TESSERA_REQUIRE(count.ok(), "{}", count.error().message);
    if (b >= batches / 4) seconds += seconds_since(start);  // the first quarter settles what lies in memory
  }
  const double got = static_cast<double>(kBatch) * static_cast<double>(batches - batches / 4);
  GroupStats after = store.stats(0);
  return {got / seconds, static_cast<double>(after.returned - before.returned) / got,
          static_cast<double>(after.spilled - before.spilled) / got};
}

}  // namespace
}  // namespace tessera::recsys

int main(int count, char** words) {
  using namespace tessera::recsys;
  std::map<std::string, std::string> given{{"--rows", "4000000"},
                                           {"--multiple", "10"},
                                           {"--zipf", "1.05"},
                                           {"--batches", "80"},
                                           {"--eviction", "lru"}};
  for (int i = 1; i + 1 < count; i += 2) given[words[i]] = words[i + 1];
  if (given["--folder"].empty()) {
    std::fprintf(stderr, "give --folder DIR, where rows that leave memory may lie\n");
    return 2;
  }
  int64_t rows = std::stoll(given["--rows"]), batches = std::stoll(given["--batches"]);
  if (given.contains("--dim")) dim = std::stoll(given["--dim"]);
  double exponent = std::stod(given["--zipf"]);
  const EvictionOptions::Kind kind = *parse_eviction(given["--eviction"]);
  DiskOptions disk{.folder = given["--folder"], .direct = given["--cached"] != "1"};
  auto whole = make(0, {}, kind);
  touch_all(*whole, rows);
  double in_memory = steps(*whole, rows, exponent, batches).rows_per_s;
  whole.reset();
  const int64_t row_bytes = dim * 4 + 4 + 16;
  auto spilling = make(
      static_cast<int64_t>(static_cast<double>(rows * row_bytes) / std::stod(given["--multiple"])), disk, kind);
  touch_all(*spilling, rows);
  auto [on_disk, returned, spilled] = steps(*spilling, rows, exponent, batches);
  std::printf(
      "%lld rows of %lld touched, memory for a %s-th, Zipf %g: %.2f M rows/s got and put, in memory %.2f, "
      "ratio %.2f "
      "(target 0.20); of each row %.3f came back from disk, %.3f went there\n",
      static_cast<long long>(rows), static_cast<long long>(dim), given["--multiple"].c_str(), exponent,
      on_disk / 1e6, in_memory / 1e6, on_disk / in_memory, returned, spilled);
  return 0;
}
