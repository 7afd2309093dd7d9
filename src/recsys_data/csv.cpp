#include "recsys_data/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/nearest.h"
#include "recsys_data/scan.h"
#include "recsys_data/text_input.h"

namespace tessera::recsys_data {
namespace {

// What a column of the file is for.
struct Use {
  enum Kind { none, label, number, slot, time } kind = none;
  size_t index = 0;  // of the number or slot
};

IdEncoding encoding_of(const SlotColumn& column) {
  return {.kind = column.cardinality == 0 ? IdEncoding::Kind::text : IdEncoding::Kind::below,
          .cardinality = column.cardinality,
          .several = column.inner_separator != 0};
}

// Cuts a line into fields. A quoted field is unquoted into `unquoted`, which the caller keeps.
class LineCutter {
 public:
  LineCutter(const char* at, const char* end, char separator) : at_(at), end_(end), separator_(separator) {}

  bool more() const { return !ended_; }
  const char* at() const { return at_; }

  std::string_view next(std::string& unquoted) {
    while (at_ < end_ && *at_ == ' ') ++at_;
    if (at_ < end_ && *at_ == '"') return quoted(unquoted);
    const char* stop = find_either(at_, end_, separator_, '\n');
    std::string_view field(at_, static_cast<size_t>(stop - at_));
    step_over(stop);
    return trimmed(field);
  }

 private:
  std::string_view quoted(std::string& unquoted) {
    unquoted.clear();
    for (++at_; at_ < end_; ++at_) {
      if (*at_ != '"') {
        unquoted += *at_;
      } else if (at_ + 1 < end_ && at_[1] == '"') {
        unquoted += *++at_;
      } else {
        ++at_;
        break;
      }
    }
    step_over(find_either(at_, end_, separator_, '\n'));
    return unquoted;
  }

  void step_over(const char* stop) {
    ended_ = stop >= end_ || *stop != separator_;
    at_ = ended_ ? end_ : stop + 1;
  }

  const char *at_, *end_;
  char separator_;
  bool ended_ = false;
};

class CsvReader {
 public:
  CsvReader(std::filesystem::path path, const Schema& schema) : path_(std::move(path)), schema_(schema) {
    for (const auto& name : schema.numeric) table_.features.numeric.push_back(name);
    table_.encodings.numbers.resize(schema.numeric.size());
    for (const auto& slot : schema.categorical) {
      table_.features.slots.push_back(slot.name);
      table_.encodings.ids.push_back(encoding_of(slot));
    }
    table_.all.slots.resize(schema.categorical.size());
    for (size_t i = 0; i < schema.categorical.size(); ++i)
      if (schema.categorical[i].inner_separator != 0) table_.all.slots[i].offsets.push_back(0);
    numbers_.resize(schema.numeric.size());
  }

  Result<Table> read() {
    TESSERA_ASSIGN_OR_RETURN(input_, TextInput::open(path_));
    if (!schema_.columns.empty()) TESSERA_RETURN_IF_ERROR(use_columns(schema_.columns));
    for (;;) {
      TESSERA_ASSIGN_OR_RETURN(std::string_view piece, input_->next());
      if (piece.empty()) break;
      TESSERA_RETURN_IF_ERROR(read_piece(piece));
    }
    if (uses_.empty()) return invalid("{}: the file is empty; expected a header line", path_.string());
    return std::move(table_);
  }

 private:
  Status read_piece(std::string_view piece) {
    const char* end = piece.data() + piece.size();
    for (const char* line = piece.data(); line < end;) {
      const char* stop = find_either(line, end, '\n', '\n');
      bool comment = schema_.comment != 0 && *line == schema_.comment;
      if (!comment && !trimmed({line, static_cast<size_t>(stop - line)}).empty())
        TESSERA_RETURN_IF_ERROR(uses_.empty() ? read_header(line, stop) : read_row(line, stop));
      line = stop + 1;
    }
    return {};
  }

  Status read_header(const char* line, const char* end) {
    std::vector<std::string> names;
    LineCutter cutter(line, end, schema_.separator);
    while (cutter.more()) names.emplace_back(cutter.next(unquoted_));
    return use_columns(names);
  }

  Status use_columns(const std::vector<std::string>& names) {
    names_ = names;
    uses_.assign(names.size(), {});
    if (!schema_.label.name.empty()) TESSERA_RETURN_IF_ERROR(use(schema_.label.name, {Use::label, 0}));
    for (size_t i = 0; i < schema_.numeric.size(); ++i)
      TESSERA_RETURN_IF_ERROR(use(schema_.numeric[i], {Use::number, i}));
    for (size_t i = 0; i < schema_.categorical.size(); ++i)
      TESSERA_RETURN_IF_ERROR(use(schema_.categorical[i].name, {Use::slot, i}));
    if (schema_.time.empty()) return {};
    return use(schema_.time, {Use::time, 0});
  }

  Status use(const std::string& name, Use use) {
    auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end())
      return invalid("{}: the schema has a column '{}', the file has none{}", path_.string(), name,
                     did_you_mean(name, names_));
    Use& place = uses_[static_cast<size_t>(found - names_.begin())];
    if (place.kind != Use::none) return invalid("{}: column '{}' is used twice", path_.string(), name);
    place = use;
    return {};
  }

  Status read_row(const char* line, const char* end) {
    LineCutter cutter(line, end, schema_.separator);
    size_t column = 0;
    for (; cutter.more() && column < uses_.size(); ++column) {
      const char* at = cutter.at();
      std::string_view field = cutter.next(unquoted_);
      if (uses_[column].kind == Use::none) continue;
      if (const char* expected = take(uses_[column], field))
        return invalid("{}: column {} ({}): got '{}', expected {}", input_->where(at), column + 1,
                       names_[column], field.substr(0, 60), expected);
    }
    if (column < uses_.size() || cutter.more())
      return invalid("{}: got {} fields, expected {}", input_->where(line),
                     cutter.more() ? fmt::format("more than {}", column) : fmt::format("{}", column),
                     uses_.size());
    table_.all.numeric.insert(table_.all.numeric.end(), numbers_.begin(), numbers_.end());
    if (schema_.label.name.empty()) table_.all.labels.push_back(0);
    ++table_.all.rows;
    return {};
  }

  bool is_missing(std::string_view field) const {
    return std::find(schema_.missing.begin(), schema_.missing.end(), field) != schema_.missing.end();
  }

  // What was expected when the field does not fit, else nullptr.
  const char* take(Use use, std::string_view field) {
    if (use.kind == Use::label) return take_label(field);
    if (use.kind == Use::number) return take_number(field, numbers_[use.index]);
    if (use.kind == Use::slot)
      return take_slot(field, schema_.categorical[use.index], table_.all.slots[use.index]);
    table_.time.emplace_back(field);
    return nullptr;
  }

  const char* take_label(std::string_view field) {
    if (field.ends_with('.') && field != schema_.label.positive && field != schema_.label.negative)
      field.remove_suffix(1);
    bool positive = field == schema_.label.positive;
    if (!positive && field != schema_.label.negative) {
      expected_ = fmt::format("'{}' or '{}'", schema_.label.positive, schema_.label.negative);
      return expected_.c_str();
    }
    table_.all.labels.push_back(positive ? 1.f : 0.f);
    return nullptr;
  }

  const char* take_number(std::string_view field, float& number) {
    number = 0;
    if (is_missing(field)) return nullptr;
    auto [stop, failure] = std::from_chars(field.data(), field.data() + field.size(), number);
    bool whole = failure == std::errc() && stop == field.data() + field.size();
    return whole && std::isfinite(number) ? nullptr : "a finite number";
  }

  const char* take_slot(std::string_view field, const SlotColumn& column, SlotIds& slot) {
    if (column.inner_separator == 0) return take_id(field, column, slot);
    while (!field.empty()) {
      size_t stop = std::min(field.find(column.inner_separator), field.size());
      if (const char* expected = take_id(trimmed(field.substr(0, stop)), column, slot)) return expected;
      field.remove_prefix(std::min(stop + 1, field.size()));
    }
    slot.offsets.push_back(static_cast<int64_t>(slot.ids.size()));
    return nullptr;
  }

  const char* take_id(std::string_view field, const SlotColumn& column, SlotIds& slot) {
    uint64_t id = 0;
    if (!is_missing(field)) {
      if (column.cardinality == 0) {
        id = id_of_text(field);
      } else {
        int64_t number = -1;
        auto [stop, failure] = std::from_chars(field.data(), field.data() + field.size(), number);
        if (failure != std::errc() || stop != field.data() + field.size() || number < 0 ||
            number >= column.cardinality) {
          expected_ = fmt::format("a whole number from 0 to {}, as the schema says", column.cardinality - 1);
          return expected_.c_str();
        }
        id = static_cast<uint64_t>(number) + 1;
      }
    }
    slot.ids.push_back(id);
    return nullptr;
  }

  std::filesystem::path path_;
  const Schema& schema_;
  std::unique_ptr<TextInput> input_;
  Table table_;
  std::vector<std::string> names_;
  std::vector<Use> uses_;  // of each column of the file
  std::vector<float> numbers_;
  std::string unquoted_, expected_;
};

}  // namespace

Result<Table> read_csv(const std::filesystem::path& path, const Schema& schema) {
  return CsvReader(path, schema).read();
}

}  // namespace tessera::recsys_data
