#include "recsys_data/table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "recsys_data/random.h"

namespace tessera::recsys_data {
namespace {

void gather_slot(const SlotIds& from, std::span<const int64_t> picks, SlotIds& into) {
  into.ids.clear();
  into.offsets.clear();
  if (!from.offsets.empty()) into.offsets.push_back(0);
  for (int64_t pick : picks) {
    auto ids = from.row(pick);
    into.ids.insert(into.ids.end(), ids.begin(), ids.end());
    if (!from.offsets.empty()) into.offsets.push_back(static_cast<int64_t>(into.ids.size()));
  }
}

class TableSource : public Source, public EncodedSource {
 public:
  TableSource(std::shared_ptr<const Table> table, TableOrder order)
      : table_(std::move(table)), order_(std::move(order)), rows_(order_.picks) {
    if (!rows_.empty()) return;
    rows_.resize(static_cast<size_t>(table_->rows()));
    std::iota(rows_.begin(), rows_.end(), 0);
  }

  const Features& features() const override { return table_->features; }
  const FeatureEncodings& encodings() const override { return table_->encodings; }
  int64_t rows() const override { return static_cast<int64_t>(rows_.size()); }

  Status start_epoch(int64_t epoch) override {
    at_ = 0;
    if (!order_.shuffle) return {};
    std::sort(rows_.begin(), rows_.end());  // the order depends on this epoch only
    Random random(mix(order_.seed, static_cast<uint64_t>(epoch)));
    for (size_t i = rows_.size(); i > 1; --i) std::swap(rows_[i - 1], rows_[random.below(i)]);
    return {};
  }

  Status next(int64_t max_rows, Batch& batch) override {
    auto count = std::min(static_cast<size_t>(max_rows), rows_.size() - at_);
    gather_rows(table_->all, {rows_.data() + at_, count}, table_->features.numeric.size(), batch);
    at_ += count;
    return {};
  }
  Status skip(int64_t rows) override {
    at_ = std::min(at_ + static_cast<size_t>(rows), rows_.size());
    return {};
  }

 private:
  std::shared_ptr<const Table> table_;
  TableOrder order_;
  std::vector<int64_t> rows_;
  size_t at_ = 0;
};

}  // namespace

void gather_rows(const Batch& from, std::span<const int64_t> picks, size_t num_numeric, Batch& into) {
  into.rows = static_cast<int64_t>(picks.size());
  into.labels.resize(picks.size());
  into.numeric.resize(picks.size() * num_numeric);
  into.slots.resize(from.slots.size());
  for (size_t i = 0; i < picks.size(); ++i) {
    auto row = static_cast<size_t>(picks[i]);
    into.labels[i] = from.labels[row];
    std::copy_n(from.numeric.data() + row * num_numeric, num_numeric, into.numeric.data() + i * num_numeric);
  }
  for (size_t s = 0; s < from.slots.size(); ++s) gather_slot(from.slots[s], picks, into.slots[s]);
}

std::vector<int64_t> order_by_time(const Table& table) {
  TESSERA_REQUIRE(table.time.size() == static_cast<size_t>(table.rows()), "the table has no times");
  std::vector<int64_t> order(table.time.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return table.time[static_cast<size_t>(a)] < table.time[static_cast<size_t>(b)];
  });
  return order;
}

void standardise(Table& table, std::span<const int64_t> fit, std::span<Table*> others) {
  const size_t columns = table.features.numeric.size();
  for (size_t c = 0; c < columns; ++c) {
    double sum = 0, squares = 0;
    for (int64_t row : fit) sum += table.all.numeric[static_cast<size_t>(row) * columns + c];
    const double count = static_cast<double>(fit.size()), mean = fit.empty() ? 0 : sum / count;
    for (int64_t row : fit) {
      double distance = table.all.numeric[static_cast<size_t>(row) * columns + c] - mean;
      squares += distance * distance;
    }
    const double scale = squares > 0 ? 1 / std::sqrt(squares / count) : 0;
    const NumberEncoding encoding{.kind = NumberEncoding::Kind::standard, .mean = mean, .scale = scale};
    auto apply = [&](Table& to) {
      to.encodings.numbers[c] = encoding;
      for (size_t at = c; at < to.all.numeric.size(); at += columns)
        to.all.numeric[at] = encoded(encoding, to.all.numeric[at]);
    };
    apply(table);
    for (Table* other : others) apply(*other);
  }
}

std::unique_ptr<Source> make_table_source(std::shared_ptr<const Table> table, TableOrder order) {
  return std::make_unique<TableSource>(std::move(table), std::move(order));
}

}  // namespace tessera::recsys_data
