#include "recsys_data/criteo.h"

#include "recsys_data/encoding.h"
#include "recsys_data/scan.h"

namespace tessera::recsys_data {
namespace {

constexpr size_t kNumbers = kCriteoNumbers, kSlots = kCriteoSlots;

// Where parsing a line failed and what was expected there; column 0 is the label.
struct Fault {
  const char* field = nullptr;
  size_t column = 0;
  const char* expected = "";
};

Features criteo_features() {
  Features features;
  for (size_t i = 1; i <= kNumbers; ++i) features.numeric.push_back(fmt::format("I{}", i));
  for (size_t i = 1; i <= kSlots; ++i) features.slots.push_back(fmt::format("C{}", i));
  return features;
}

// Steps over the separator of a field; a fault when something else stands there.
bool pass(const char*& at, char separator) {
  if (*at != separator) return false;
  ++at;
  return true;
}

bool parse_numbers(const char*& at, float* numeric, Fault& fault) {
  for (size_t i = 0; i < kNumbers; ++i) {
    const char* field = at;
    int64_t value = 0;
    if (*at != '\t') at = parse_integer(at, value);
    if (at == nullptr || !pass(at, '\t')) {
      fault = {field, 1 + i, "an integer or nothing, then a tab"};
      return false;
    }
    numeric[i] = log1p_of_count(value);
  }
  return true;
}

bool parse_slots(const char*& at, Batch& batch, size_t row, Fault& fault) {
  for (size_t i = 0; i < kSlots; ++i) {
    const char* field = at;
    uint32_t value = 0;
    uint64_t id = 0;
    if (parse_hex8(at, value)) {
      id = uint64_t{value} + 1;
      at += 8;
    }
    if (i + 1 == kSlots && *at == '\r') ++at;
    if (!pass(at, i + 1 == kSlots ? '\n' : '\t')) {
      fault = {field, 1 + kNumbers + i,
               i + 1 == kSlots ? "8 hexadecimal digits or nothing, then the end of the line"
                               : "8 hexadecimal digits or nothing, then a tab"};
      return false;
    }
    batch.slots[i].ids[row] = id;
  }
  return true;
}

// One line into row `row`; `at` moves behind it.
bool parse_line(const char*& at, Batch& batch, size_t row, Fault& fault) {
  if ((*at != '0' && *at != '1') || at[1] != '\t') {
    fault = {at, 0, "0 or 1, then a tab"};
    return false;
  }
  batch.labels[row] = static_cast<float>(*at - '0');
  at += 2;
  return parse_numbers(at, batch.numeric.data() + row * kNumbers, fault) && parse_slots(at, batch, row, fault);
}

class CriteoSource : public Source, public EncodedSource {
 public:
  explicit CriteoSource(std::vector<CriteoPart> parts)
      : parts_(std::move(parts)), features_(criteo_features()) {}

  const Features& features() const override { return features_; }
  const FeatureEncodings& encodings() const override { return encodings_; }
  int64_t rows() const override { return 0; }

  Status start_epoch(int64_t) override {
    part_ = 0;
    input_.reset();
    rest_ = {};
    return {};
  }

  Status next(int64_t max_rows, Batch& batch) override {
    size_for(batch, max_rows);
    while (batch.rows < max_rows) {
      if (rest_.empty()) {
        TESSERA_RETURN_IF_ERROR(next_piece());
        if (rest_.empty()) break;
      }
      TESSERA_RETURN_IF_ERROR(parse_piece(batch, max_rows));
    }
    size_for_rows(batch, batch.rows);
    return {};
  }

 private:
  static void size_for_rows(Batch& batch, int64_t rows) {
    auto count = static_cast<size_t>(rows);
    batch.labels.resize(count);
    batch.numeric.resize(count * kNumbers);
    for (SlotIds& slot : batch.slots) slot.ids.resize(count);
  }

  static void size_for(Batch& batch, int64_t rows) {
    batch.slots.resize(kSlots);
    for (SlotIds& slot : batch.slots) slot.offsets.clear();
    size_for_rows(batch, rows);
    batch.rows = 0;
  }

  Status parse_piece(Batch& batch, int64_t max_rows) {
    const char* at = rest_.data();
    const char* end = at + rest_.size();
    auto row = static_cast<size_t>(batch.rows);
    for (; at < end && row < static_cast<size_t>(max_rows); ++row) {
      Fault fault;
      if (!parse_line(at, batch, row, fault)) return error_of(fault);
    }
    batch.rows = static_cast<int64_t>(row);
    rest_ = {at, static_cast<size_t>(end - at)};
    return {};
  }

  // The next piece of the present part, else of the next one; stays empty after the last.
  Status next_piece() {
    for (;;) {
      if (!input_) {
        if (part_ == parts_.size()) return {};
        TESSERA_ASSIGN_OR_RETURN(input_, TextInput::open(parts_[part_].path, parts_[part_].range));
      }
      TESSERA_ASSIGN_OR_RETURN(rest_, input_->next());
      if (!rest_.empty()) return {};
      input_.reset();
      ++part_;
    }
  }

  Error error_of(const Fault& fault) const {
    const char* end = find_either(fault.field, rest_.data() + rest_.size(), '\t', '\n');
    std::string_view text(fault.field, static_cast<size_t>(end - fault.field));
    std::string name = fault.column == 0          ? "label"
                       : fault.column <= kNumbers ? features_.numeric[fault.column - 1]
                                                  : features_.slots[fault.column - 1 - kNumbers];
    return invalid("{}: column {} ({}): got '{}', expected {}", input_->where(fault.field), fault.column + 1,
                   name, text.substr(0, 40), fault.expected);
  }

  std::vector<CriteoPart> parts_;
  Features features_;
  FeatureEncodings encodings_{
      std::vector<NumberEncoding>(kNumbers, {.kind = NumberEncoding::Kind::log1p}),
      std::vector<IdEncoding>(kSlots, {.kind = IdEncoding::Kind::hex32}),
  };
  size_t part_ = 0;
  std::unique_ptr<TextInput> input_;
  std::string_view rest_;
};

}  // namespace

std::unique_ptr<Source> make_criteo_source(std::vector<CriteoPart> parts) {
  return std::make_unique<CriteoSource>(std::move(parts));
}

Result<CriteoSplits> split_criteo_kaggle(const std::filesystem::path& file, double valid, double test) {
  if (valid < 0 || test < 0 || valid + test >= 1)
    return invalid("shares of validation {} and test {}: expected both at least 0 and together below 1", valid,
                   test);
  if (is_gzip(file)) {
    if (valid > 0 || test > 0)
      return invalid("{}: a gzip file cannot be split by time; unpack it, or set data.valid=0 data.test=0",
                     file.string());
    return CriteoSplits{.train = {{file, {}}}};
  }
  TESSERA_ASSIGN_OR_RETURN(int64_t bytes, file_bytes(file));
  auto at = [&](double share) { return static_cast<int64_t>(static_cast<double>(bytes) * share); };
  int64_t first = at(1 - valid - test), second = at(1 - test);
  CriteoSplits splits{.train = {{file, {0, first}}}};
  if (valid > 0) splits.valid = {{file, {first, second}}};
  if (test > 0) splits.test = {{file, {second, -1}}};
  return splits;
}

Result<CriteoSplits> split_criteo_terabyte(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> days;
  for (int day = 0; day < 24; ++day) {
    auto plain = folder / fmt::format("day_{}", day);
    auto packed = folder / fmt::format("day_{}.gz", day);
    if (std::filesystem::exists(plain))
      days.push_back(plain);
    else if (std::filesystem::exists(packed))
      days.push_back(packed);
  }
  if (days.size() < 2)
    return make_error(ErrorCode::not_found, "{}: expected at least two of day_0 .. day_23 (or .gz), found {}",
                      folder.string(), days.size());
  CriteoSplits splits;
  for (size_t i = 0; i + 1 < days.size(); ++i) splits.train.push_back({days[i], {}});
  if (is_gzip(days.back())) {
    splits.test = {{days.back(), {}}};
    return splits;
  }
  TESSERA_ASSIGN_OR_RETURN(int64_t bytes, file_bytes(days.back()));
  splits.valid = {{days.back(), {0, bytes / 2}}};
  splits.test = {{days.back(), {bytes / 2, -1}}};
  return splits;
}

}  // namespace tessera::recsys_data
