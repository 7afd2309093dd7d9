#include "recsys/capacity.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/clock.h"
#include "core/machine.h"
#include "recsys/hash.h"
#include "recsys/row_update.h"

namespace tessera::recsys {
namespace {

constexpr int64_t kBatch = 8192;
constexpr int64_t kDiskIndexBytes = 12;  // in memory, of a row on disk

// The k-th touched id: distinct for k below `ids`, scattered over all of them, because the prime divides no
// count of ids that is a product of other primes.
uint64_t touched_id(int64_t k, int64_t ids) {
  constexpr uint64_t kPrime = 618'033'988'777;
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(k) * kPrime % static_cast<uint64_t>(ids));
}

// The bytes of an id as whole numbers from -127 to 127 that a row of int8 holds exactly: the first is 127.
void expected_row(uint64_t id, int64_t dim, float* values) {
  uint64_t random = 0;
  for (int64_t j = 0; j < dim; ++j) {
    if (j % 8 == 0) random = mix64(id + static_cast<uint64_t>(j) * 0x9e3779b97f4a7c15u);
    values[j] = static_cast<float>(static_cast<int>(random >> (8 * (j % 8)) & 0xff) % 255 - 127);
  }
  values[0] = 127;
}

class Run {
 public:
  Run(const CapacityOptions& options, double parameters, int64_t rows)
      : options_(options),
        ids_(static_cast<int64_t>(parameters / static_cast<double>(options.dim))),
        rows_(rows) {}

  Status open() {
    GroupOptions group{.name = "capacity", .dim = options_.dim, .row_type = options_.row_type};
    group.init.kind = InitOptions::Kind::zeros;
    group.optimizer = {.kind = OptimizerOptions::Kind::sgd, .learning_rate = 1};
    DiskOptions disk;
    if (options_.memory_bytes > 0) {
      group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = options_.memory_bytes};
      disk = options_.disk;
    } else {
      group.expected_rows = rows_;
    }
    TESSERA_ASSIGN_OR_RETURN(store_, Store::create({.groups = {group}, .disk = disk}));
    floats_.resize(static_cast<size_t>(kBatch * options_.dim));
    gradients_.resize(floats_.size());
    return {};
  }

  // Get and put of rows [first, last); returns the seconds that the store took.
  Result<double> touch(int64_t first, int64_t last) {
    double seconds = 0;
    for (int64_t begin = first; begin < last; begin += kBatch) {
      fill(begin, std::min(kBatch, last - begin));
      Clock::time_point start = Clock::now();
      TESSERA_RETURN_IF_ERROR(store_->get(0, batch_, floats()));
      TESSERA_ASSIGN_OR_RETURN(PutCount count, store_->put(0, batch_, gradients(), {.step = ++step_}));
      seconds += seconds_since(start);
      if (count.updated != static_cast<int64_t>(batch_.size()))
        return make_error(ErrorCode::data_loss, "{} of {} gradients found no row", count.absent, batch_.size());
    }
    return seconds;
  }

  Result<int64_t> count_errors(int64_t begin, int64_t last) {
    int64_t errors = 0;
    for (; begin < last; begin += kBatch) {
      fill(begin, std::min(kBatch, last - begin));
      TESSERA_RETURN_IF_ERROR(store_->get(0, batch_, floats(), Access::read));
      for (size_t i = 0; i < batch_.size(); ++i) errors += is_wrong(i) ? 1 : 0;
    }
    return errors;
  }
  const Store& store() const { return *store_; }
  int64_t ids() const { return ids_; }

 private:
  void fill(int64_t begin, int64_t count) {
    batch_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      batch_[static_cast<size_t>(i)] = touched_id(begin + i, ids_);
      float* gradient = &gradients_[static_cast<size_t>(i * options_.dim)];
      expected_row(batch_[static_cast<size_t>(i)], options_.dim, gradient);
      for (int64_t j = 0; j < options_.dim; ++j) gradient[j] = -gradient[j];
    }
  }
  bool is_wrong(size_t i) const {
    size_t dim = static_cast<size_t>(options_.dim);
    for (size_t j = 0; j < dim; ++j)
      if (floats_[i * dim + j] != -gradients_[i * dim + j]) return true;
    return false;
  }
  std::span<float> floats() {
    return std::span(floats_).first(batch_.size() * static_cast<size_t>(options_.dim));
  }
  std::span<const float> gradients() const {
    return std::span(gradients_).first(batch_.size() * static_cast<size_t>(options_.dim));
  }

  const CapacityOptions& options_;
  int64_t ids_, rows_;
  uint64_t step_ = 0;
  std::unique_ptr<Store> store_;
  std::vector<uint64_t> batch_;
  std::vector<float> floats_, gradients_;
};

Status check(const CapacityOptions& options) {
  double largest = std::ldexp(1.0, 63) * static_cast<double>(options.dim);
  if (options.dim < 1 || options.touched_rows < 1 || options.measured_rows < 1 || options.slots < 1)
    return invalid("dim, touched rows, measured rows and slots must be 1 or more");
  if (!(options.parameters >= 16.0 * static_cast<double>(options.dim * options.measured_rows)))
    return invalid("{} parameters of dim {} are too few: a sixteenth of them must hold {} measured rows",
                   options.parameters, options.dim, options.measured_rows);
  if (options.parameters > largest) return invalid("{} parameters exceed 2^63 ids", options.parameters);
  double ids = options.parameters / static_cast<double>(options.dim);
  if (static_cast<double>(options.touched_rows) > ids)
    return invalid("{} rows to touch, but only {} ids", options.touched_rows, ids);
  GroupOptions group{.dim = options.dim, .row_type = options.row_type};
  group.optimizer.kind = OptimizerOptions::Kind::sgd;
  if (options.memory_bytes < 0 || (options.memory_bytes > 0) == options.disk.folder.empty())
    return invalid(
        "a bound on memory and a folder on disk for the rows beyond it go together: give both or none");
  int64_t needed = (RecordLayout(group).bytes + 8) * options.touched_rows;
  if (options.memory_bytes > 0) needed = options.memory_bytes + kDiskIndexBytes * options.touched_rows;
  int64_t available = this_machine().available_bytes;
  if (needed > available)
    return make_error(ErrorCode::resource_exhausted,
                      "{} rows of {} bytes need {} bytes, and {} are available; touch fewer rows, or make them "
                      "smaller with --row-type int8 or --dim",
                      options.touched_rows, RecordLayout(group).bytes, needed, available);
  return {};
}

double flatness_of(const std::vector<double>& rates) {
  double mean = 0, worst = 0;
  for (double rate : rates) mean += rate / static_cast<double>(rates.size());
  for (double rate : rates) worst = std::max(worst, std::abs(rate / mean - 1));
  return worst;
}

}  // namespace

Result<CapacityReport> measure_capacity(const CapacityOptions& options,
                                        const std::function<void(int64_t, int64_t)>& progress) {
  TESSERA_RETURN_IF_ERROR(check(options));
  CapacityReport report{.parameters = options.parameters, .dim = options.dim};
  for (int divisor : {16, 8, 4, 2, 1}) report.sizes.push_back(options.parameters / divisor);
  report.samples_per_s.resize(report.sizes.size());
  int64_t sizes = static_cast<int64_t>(report.sizes.size()), done = 0;
  int64_t total = options.rounds * sizes * options.measured_rows + 2 * options.touched_rows;
  auto tell = [&](int64_t rows) {
    if (progress) progress(done += rows, total);
  };
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t s = 0; s < report.sizes.size(); ++s) {
      Run run(options, report.sizes[s], options.measured_rows);
      TESSERA_RETURN_IF_ERROR(run.open());
      TESSERA_ASSIGN_OR_RETURN(double seconds, run.touch(0, options.measured_rows));
      double samples = static_cast<double>(options.measured_rows) / static_cast<double>(options.slots);
      report.samples_per_s[s] = std::max(report.samples_per_s[s], samples / seconds);
      tell(options.measured_rows);
    }
  }
  Run run(options, options.parameters, options.touched_rows);
  TESSERA_RETURN_IF_ERROR(run.open());
  constexpr int64_t kPart = 1 << 20;
  for (int64_t first = 0; first < options.touched_rows; first += kPart) {
    int64_t last = std::min(first + kPart, options.touched_rows);
    TESSERA_ASSIGN_OR_RETURN(double seconds, run.touch(first, last));
    static_cast<void>(seconds);
    tell(last - first);
  }
  for (int64_t first = 0; first < options.touched_rows; first += kPart) {
    int64_t last = std::min(first + kPart, options.touched_rows);
    TESSERA_ASSIGN_OR_RETURN(int64_t errors, run.count_errors(first, last));
    report.readback_errors += errors;
    tell(last - first);
  }
  GroupStats stats = run.store().stats(0);
  report.ids = run.ids();
  report.virtual_bytes =
      static_cast<double>(run.ids()) * static_cast<double>(RecordLayout(run.store().group(0)).bytes);
  report.touched_rows = stats.rows + stats.disk_rows;
  report.resident_rows = stats.rows;
  report.resident_bytes = stats.bytes;
  report.disk_bytes = stats.disk_bytes;
  report.flatness = flatness_of(report.samples_per_s);
  return report;
}

Result<double> parse_count(std::string_view text) {
  double value = 0;
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  constexpr std::string_view kUnits = "KMGTP";
  if (unit == "B") unit = "G";
  size_t power = unit.size() == 1 ? kUnits.find(unit[0]) : std::string_view::npos;
  bool known = unit.empty() || power != std::string_view::npos;
  if (failure != std::errc() || !known || !(value > 0))
    return invalid("'{}' is no count; expected a number with K, M, G, T or P, as in 100T", text);
  return unit.empty() ? value : value * std::pow(1000.0, static_cast<double>(power + 1));
}

}  // namespace tessera::recsys
