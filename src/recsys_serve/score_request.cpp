#include "recsys_serve/score_request.h"

#include <nlohmann/json.hpp>

#include "core/nearest.h"

namespace tessera::recsys_serve {

using nlohmann::json;
using recsys_data::Batch;
using recsys_data::EncodedFeatures;
using recsys_data::RawValue;

// ---- batches ----

BatchBuilder::BatchBuilder(const EncodedFeatures& features)
    : features_(features), has_number_(features.numeric.size()), has_slot_(features.slots.size()) {
  batch_.slots.resize(features.slots.size());
}

Status BatchBuilder::check_rows(const std::string& name, size_t rows) {
  if (!has_rows_) {
    has_rows_ = true;
    batch_.rows = static_cast<int64_t>(rows);
    batch_.numeric.resize(rows * features_.numeric.size());
    batch_.labels.resize(rows);
  }
  if (static_cast<int64_t>(rows) == batch_.rows) return {};
  return invalid("{} has {} values, the feature before it {}: expected one for each row", name, rows,
                 batch_.rows);
}

Status BatchBuilder::add_number(size_t feature, std::span<const RawValue> values) {
  TESSERA_RETURN_IF_ERROR(check_rows(features_.numeric[feature], values.size()));
  has_number_[feature] = true;
  for (size_t row = 0; row < values.size(); ++row) {
    auto number = encode(features_.number_encodings[feature], values[row]);
    if (!number) return number.error().within(fmt::format("row {}", row));
    batch_.numeric[row * features_.numeric.size() + feature] = *number;
  }
  return {};
}

Status BatchBuilder::add_ids(size_t slot, std::span<const RawValue> values) {
  TESSERA_RETURN_IF_ERROR(check_rows(features_.slots[slot], values.size()));
  has_slot_[slot] = true;
  recsys_data::SlotIds& out = batch_.slots[slot];
  const bool several = features_.id_encodings[slot].several;
  out = {};
  if (several) out.offsets.push_back(0);
  for (size_t row = 0; row < values.size(); ++row) {
    auto id = encode(features_.id_encodings[slot], values[row]);
    if (!id) return id.error().within(fmt::format("row {}", row));
    if (!several || values[row].index() != 0) out.ids.push_back(*id);
    if (several) out.offsets.push_back(static_cast<int64_t>(out.ids.size()));
  }
  return {};
}

Status BatchBuilder::add_several(size_t slot, std::span<const std::vector<RawValue>> values) {
  TESSERA_RETURN_IF_ERROR(check_rows(features_.slots[slot], values.size()));
  has_slot_[slot] = true;
  recsys_data::SlotIds& out = batch_.slots[slot];
  out = {.ids = {}, .offsets = {0}};
  for (size_t row = 0; row < values.size(); ++row) {
    for (const RawValue& value : values[row]) {
      auto id = encode(features_.id_encodings[slot], value);
      if (!id) return id.error().within(fmt::format("row {}", row));
      out.ids.push_back(*id);
    }
    out.offsets.push_back(static_cast<int64_t>(out.ids.size()));
  }
  return {};
}

std::optional<std::string> BatchBuilder::missing() const {
  auto absent = std::find(has_number_.begin(), has_number_.end(), false);
  if (absent != has_number_.end())
    return "dense." + features_.numeric[static_cast<size_t>(absent - has_number_.begin())];
  absent = std::find(has_slot_.begin(), has_slot_.end(), false);
  if (absent != has_slot_.end())
    return "sparse." + features_.slots[static_cast<size_t>(absent - has_slot_.begin())];
  return std::nullopt;
}

// ---- JSON ----

namespace {

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

// Of a scalar, which `value` must outlive.
Result<RawValue> raw(const json& value) {
  if (value.is_null()) return RawValue();
  if (value.is_string()) return RawValue(std::string_view(value.get_ref<const std::string&>()));
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)
    return invalid("got {}, expected at most {}", shown(value), INT64_MAX);
  if (value.is_number_integer()) return RawValue(value.get<int64_t>());
  if (value.is_number()) return RawValue(value.get<double>());
  return invalid("got {}, expected a number, a text or null", shown(value));
}

Result<std::vector<RawValue>> raw_list(const json& list) {
  std::vector<RawValue> values;
  values.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    auto value = raw(list[i]);
    if (!value) return value.error().within(fmt::format("row {}", i));
    values.push_back(*value);
  }
  return values;
}

Result<std::vector<std::vector<RawValue>>> raw_lists(const json& lists) {
  std::vector<std::vector<RawValue>> rows;
  rows.reserve(lists.size());
  for (size_t i = 0; i < lists.size(); ++i) {
    if (!lists[i].is_array()) return invalid("row {}: got {}, expected a list of ids", i, shown(lists[i]));
    auto row = raw_list(lists[i]);
    if (!row) return row.error().within(fmt::format("row {}", i));
    rows.push_back(*std::move(row));
  }
  return rows;
}

HttpError bad(std::string message, std::string field) {
  return {.status = 400, .message = std::move(message), .param = std::move(field)};
}

// One column of `section`, "dense" or "sparse".
Status add_column(BatchBuilder& builder, const EncodedFeatures& features, bool dense, size_t feature,
                  const json& values) {
  if (!dense && features.id_encodings[feature].several) {
    TESSERA_ASSIGN_OR_RETURN(auto lists, raw_lists(values));
    return builder.add_several(feature, lists);
  }
  TESSERA_ASSIGN_OR_RETURN(auto list, raw_list(values));
  return dense ? builder.add_number(feature, list) : builder.add_ids(feature, list);
}

std::optional<HttpError> read_section(const json& body, bool dense, const EncodedFeatures& features,
                                      int64_t max_rows, BatchBuilder& builder) {
  const std::string section = dense ? "dense" : "sparse";
  const std::vector<std::string>& names = dense ? features.numeric : features.slots;
  if (!body.contains(section)) return std::nullopt;
  if (!body[section].is_object())
    return bad(fmt::format("{}: got {}, expected an object of features by name", section, shown(body[section])),
               section);
  for (const auto& [name, values] : body[section].items()) {
    const std::string field = section + "." + name;
    auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      return bad(fmt::format("{}: the model has no {} feature of this name{}", field, section,
                             did_you_mean(name, names)),
                 field);
    if (!values.is_array())
      return bad(fmt::format("{}: got {}, expected a list with one value for each row", field, shown(values)),
                 field);
    if (static_cast<int64_t>(values.size()) > max_rows)
      return bad(fmt::format("{}: {} rows, at most {} in one request", field, values.size(), max_rows), field);
    Status status = add_column(builder, features, dense, static_cast<size_t>(found - names.begin()), values);
    if (!status.ok()) return bad(fmt::format("{}: {}", field, status.error().message), field);
  }
  return std::nullopt;
}

}  // namespace

std::variant<std::shared_ptr<const json>, HttpError> parse_body(std::string_view body) {
  // What is nested deeply would be walked recursively later on.
  constexpr int kMostDepth = 8;
  bool too_deep = false;
  auto watch = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > kMostDepth;
    return !too_deep;
  };
  auto parsed = std::make_shared<const json>(json::parse(body, watch, false));
  if (too_deep) return bad(fmt::format("the body is nested deeper than {} levels", kMostDepth), "");
  if (parsed->is_discarded()) return bad("the body is not JSON", "");
  if (!parsed->is_object()) return bad("the body must be an object", "");
  return parsed;
}

std::variant<Batch, HttpError> parse_score_request(std::string_view body, const EncodedFeatures& features,
                                                   int64_t max_rows) {
  auto result = parse_body(body);
  if (auto* error = std::get_if<HttpError>(&result)) return *error;
  const json& parsed = *std::get<std::shared_ptr<const json>>(result);
  for (const auto& [key, value] : parsed.items())
    if (key != "dense" && key != "sparse")
      return bad(fmt::format("{}: unknown key, expected dense or sparse{}", key,
                             did_you_mean(key, {"dense", "sparse"})),
                 key);
  BatchBuilder builder(features);
  for (bool dense : {true, false})
    if (auto error = read_section(parsed, dense, features, max_rows, builder)) return *std::move(error);
  if (auto field = builder.missing())
    return bad(fmt::format("{}: the feature is missing; give null where a value is not known", *field), *field);
  return builder.take();
}

}  // namespace tessera::recsys_serve
