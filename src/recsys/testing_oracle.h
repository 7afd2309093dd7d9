// Random operations on a store beside a std::map that does the same one id at a time, for the tests and the
// bench. The map knows the optimizer in plain scalar code; which rows were refused or evicted it learns from
// find(), and then demands that nothing else changed.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "recsys/store.h"

namespace tessera::recsys::testing {

// Persia's put: the gradients of ids without a row are not skipped, so later ones land on wrong rows.
inline Result<PutCount> positional_put(Store& store, std::span<const uint64_t> ids,
                                       std::span<const float> gradients, const PutOptions& options) {
  std::vector<uint8_t> present(ids.size());
  store.find(0, ids, present);
  std::vector<uint64_t> kept;
  for (size_t i = 0; i < ids.size(); ++i)
    if (present[i] != 0) kept.push_back(ids[i]);
  size_t dim = static_cast<size_t>(store.group(0).dim);
  auto count = store.put(0, kept, gradients.first(kept.size() * dim), options);
  if (count.ok()) count->absent += static_cast<int64_t>(ids.size() - kept.size());
  return count;
}

struct OracleReport {
  int64_t operations = 0, gets = 0, puts = 0, refused = 0, evicted = 0, restarts = 0, mismatches = 0;
};

class Oracle {
 public:
  using Make = std::function<std::unique_ptr<Store>()>;
  // REQUIRES: one group of float32 rows with SGD (without momentum) or Adagrad.
  // `restart` replaces the store by one with the same content.
  Oracle(uint64_t seed, Make make, std::function<void(std::unique_ptr<Store>&)> restart = nullptr)
      : random_(seed), fresh_(make()), store_(make()), restart_(std::move(restart)) {}

  bool positional_bug = false;
  bool lossless = false;  // rows beyond the budget go to disk: none may leave

  // `operations`: ids in gets and puts together.
  OracleReport run(int64_t operations) {
    while (report_.operations < operations) {
      uint64_t dice = random_() % 100;
      if (dice < 45)
        get();
      else if (dice < 90)
        put();
      else if (dice < 95)
        erase();
      else if (dice < 99 || !restart_)
        store_->advance(++step_);
      else
        restart();
    }
    return report_;
  }

 private:
  static constexpr uint64_t kUniverse = 400;
  struct Row {
    std::vector<float> values, sums;
  };

  std::vector<uint64_t> some_ids() {
    std::vector<uint64_t> ids(1 + random_() % 40);
    for (uint64_t& id : ids) {
      uint64_t pick = random_() % kUniverse;
      id = (pick * pick / kUniverse) *
           0x9e3779b97f4a7c15u;  // small numbers are more frequent; the whole 64 bits are used
    }
    report_.operations += static_cast<int64_t>(ids.size());
    return ids;
  }
  size_t dim() const { return static_cast<size_t>(store_->group(0).dim); }
  std::vector<float> read(Store& store, std::span<const uint64_t> ids) {
    std::vector<float> rows(ids.size() * dim());
    check(store.get(0, ids, rows, Access::read).ok());
    return rows;
  }
  void check(bool holds) { report_.mismatches += holds ? 0 : 1; }
  static bool equal(const float* a, const std::vector<float>& b) {
    return std::memcmp(a, b.data(), b.size() * sizeof(float)) == 0;
  }

  std::vector<float> initial(uint64_t id) {
    uint64_t ids[1] = {id};
    std::vector<float> row(dim());
    if (fresh_->group(0).admission.kind != AdmissionOptions::Kind::all) {
      // A refusing store reads as zeros; assign nothing, ask a store that admits all.
      if (!admitting_) {
        GroupOptions group = fresh_->group(0);
        group.admission = {};
        admitting_ = *Store::create({.groups = {group}, .num_shards = 1});
      }
      return read(*admitting_, ids);
    }
    return read(*fresh_, ids);
  }
  Row fresh_row(uint64_t id) {
    float start = static_cast<float>(store_->group(0).optimizer.initial_accumulator);
    return {initial(id), std::vector<float>(dim(), start)};
  }
  bool can_lose_rows() const {
    return !lossless && store_->group(0).eviction.kind != EvictionOptions::Kind::none;
  }

  // Rows that left the store leave the map.
  void follow_evictions() {
    std::vector<uint64_t> known;
    for (const auto& [id, row] : rows_) known.push_back(id);
    std::vector<uint8_t> present(known.size());
    store_->find(0, known, present);
    for (size_t i = 0; i < known.size(); ++i) {
      if (present[i] != 0) continue;
      check(can_lose_rows());
      rows_.erase(known[i]);
      ++report_.evicted;
    }
  }

  void get() {
    ++report_.gets;
    std::vector<uint64_t> ids = some_ids();
    std::vector<float> rows(ids.size() * dim());
    follow_evictions();  // time may have passed
    before_ = rows_;
    check(store_->get(0, ids, rows).ok());
    std::vector<uint8_t> present(ids.size());
    store_->find(0, ids, present);
    std::vector<float> after = read(*store_, ids);
    for (size_t i = 0; i < ids.size(); ++i)
      check_got(ids[i], &rows[i * dim()], &after[i * dim()], present[i] != 0);
    follow_evictions();
  }
  // `got` in the call, `after` it; `before_` is what was known when it began. An id that stands several times
  // in the call may be read, evicted by its neighbours, and read again.
  void check_got(uint64_t id, const float* got, const float* after, bool present) {
    auto known = before_.find(id);
    Row fresh = fresh_row(id);
    bool is_old = known != before_.end() && equal(got, known->second.values),
         is_initial = equal(got, fresh.values);
    if (!is_old) check(known == before_.end() || can_lose_rows());
    if (!is_old && !is_initial) {
      check(is_zero(got) && !present && store_->group(0).admission.kind != AdmissionOptions::Kind::all);
      ++report_.refused;
    }
    if (!present) return;
    if (known != before_.end() && equal(after, known->second.values)) return;
    check(equal(after, fresh.values) && (known == before_.end() || can_lose_rows()));
    rows_[id] = fresh;
  }
  bool is_zero(const float* got) const { return equal(got, std::vector<float>(dim(), 0.0f)); }

  void put() {
    ++report_.puts;
    std::vector<uint64_t> ids = some_ids();
    std::vector<float> gradients(ids.size() * dim());
    for (float& g : gradients) g = static_cast<float>(static_cast<int64_t>(random_() % 2001) - 1000) * 1e-3f;
    follow_evictions();
    PutOptions options{.step = step_};
    auto count = positional_bug ? positional_put(*store_, ids, gradients, options)
                                : store_->put(0, ids, gradients, options);
    int64_t absent = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      auto known = rows_.find(ids[i]);
      if (known == rows_.end())
        ++absent;
      else
        update(known->second, &gradients[i * dim()]);
    }
    check(count.ok() && count->absent == absent);
    for (auto& [id, row] : rows_) compare(id, row);
  }
  void update(Row& row, const float* g) {
    const OptimizerOptions& o = store_->group(0).optimizer;
    float rate = static_cast<float>(o.learning_rate), epsilon = static_cast<float>(o.epsilon);
    for (size_t j = 0; j < dim(); ++j) {
      if (o.kind == OptimizerOptions::Kind::sgd) {
        row.values[j] = std::fma(g[j], -rate, row.values[j]);
        continue;
      }
      row.sums[j] = std::fma(g[j], g[j], row.sums[j]);
      row.values[j] += -rate * g[j] / (std::sqrt(row.sums[j]) + epsilon);
    }
  }
  void compare(uint64_t id, const Row& row) {
    uint64_t ids[1] = {id};
    check(equal(read(*store_, ids).data(), row.values));
  }

  void erase() {
    std::vector<uint64_t> ids = some_ids();
    follow_evictions();
    std::set<uint64_t> gone;
    for (uint64_t id : ids)
      if (rows_.erase(id) > 0) gone.insert(id);
    check(store_->erase(0, ids) == static_cast<int64_t>(gone.size()));
    std::vector<uint8_t> present(ids.size());
    store_->find(0, ids, present);
    for (uint8_t p : present) check(p == 0);
  }

  void restart() {
    ++report_.restarts;
    restart_(store_);
    for (auto& [id, row] : rows_) compare(id, row);
  }

  std::mt19937_64 random_;
  std::unique_ptr<Store> fresh_, store_, admitting_;
  std::function<void(std::unique_ptr<Store>&)> restart_;
  std::map<uint64_t, Row> rows_, before_;
  OracleReport report_;
  uint64_t step_ = 0;
};

}  // namespace tessera::recsys::testing
