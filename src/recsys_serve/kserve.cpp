#include "recsys_serve/kserve.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/nearest.h"

namespace tessera::recsys_serve {

using nlohmann::json;
using recsys_data::EncodedFeatures;
using recsys_data::RawValue;

namespace {

std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

const std::vector<std::string> kNumbers = {"FP32", "FP64"};
const std::vector<std::string> kWholes = {"INT8",  "INT16",  "INT32",  "INT64",
                                          "UINT8", "UINT16", "UINT32", "UINT64"};
const std::vector<std::string> kOutputs = {"score", "logit"};

bool is_one_of(const std::string& word, const std::vector<std::string>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

HttpError bad_tensor(std::string message, std::string field = "") {
  return {.status = 400, .message = std::move(message), .param = std::move(field)};
}

// Nested lists, as some clients send matrices, one behind the other.
void flatten(const json& data, std::vector<const json*>& flat) {
  for (const json& value : data) value.is_array() ? flatten(value, flat) : flat.push_back(&value);
}

// One input tensor after its head was checked.
struct Column {
  std::string name, datatype;
  size_t rows = 0, width = 1;
  std::vector<const json*> data;
};

Result<Column> read_column(const json& input) {
  if (!input.is_object() || !input.contains("name") || !input["name"].is_string())
    return invalid("inputs: expected tensors with a name");
  Column column{.name = input["name"]};
  if (!input.contains("datatype") || !input["datatype"].is_string())
    return invalid("input '{}': datatype is missing", column.name);
  column.datatype = input["datatype"];
  if (!input.contains("data") || !input["data"].is_array())
    return invalid("input '{}': data is missing, or no list; this server takes JSON without binary parts",
                   column.name);
  const json shape = input.value("shape", json::array());
  const bool sizes = shape.is_array() && (shape.size() == 1 || shape.size() == 2) &&
                     std::all_of(shape.begin(), shape.end(), [](const json& size) {
                       return size.is_number_unsigned() && size.get<uint64_t>() <= (1u << 30);
                     });
  if (!sizes)
    return invalid("input '{}': shape {}, expected [rows] or [rows, values]", column.name, text_of(shape));
  column.rows = shape[0];
  column.width = shape.size() == 2 ? shape[1].get<size_t>() : 1;
  flatten(input["data"], column.data);
  if (column.data.size() != column.rows * column.width)
    return invalid("input '{}': {} values for shape {}", column.name, column.data.size(), text_of(shape));
  return column;
}

// A value as its tensor's datatype says.
Result<RawValue> raw(const Column& column, const json& value) {
  if (column.datatype == "BYTES") {
    if (!value.is_string()) return invalid("got {}, expected a text", text_of(value));
    return RawValue(std::string_view(value.get_ref<const std::string&>()));
  }
  if (is_one_of(column.datatype, kWholes)) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX))
      return invalid("got {}, expected a whole number", text_of(value));
    return RawValue(value.get<int64_t>());
  }
  if (!is_one_of(column.datatype, kNumbers))
    return invalid("datatype {}, expected BYTES, FP32, FP64 or INT64", column.datatype);
  if (!value.is_number()) return invalid("got {}, expected a number", text_of(value));
  return RawValue(value.get<double>());
}

// In a row of several ids: no id.
bool fills_up(const RawValue& value) {
  const auto* text = std::get_if<std::string_view>(&value);
  const auto* whole = std::get_if<int64_t>(&value);
  return (text != nullptr && text->empty()) || (whole != nullptr && *whole == -1);
}

Status add(BatchBuilder& builder, const EncodedFeatures& features, const Column& column) {
  auto find = [&](const std::vector<std::string>& names) {
    return static_cast<size_t>(std::find(names.begin(), names.end(), column.name) - names.begin());
  };
  const size_t number = find(features.numeric), slot = find(features.slots);
  if (number == features.numeric.size() && slot == features.slots.size()) {
    std::vector<std::string> names = features.numeric;
    names.insert(names.end(), features.slots.begin(), features.slots.end());
    return invalid("the model has no feature of this name{}", did_you_mean(column.name, names));
  }
  const bool several = slot < features.slots.size() && features.id_encodings[slot].several;
  if (!several && column.width != 1) return invalid("{} values in a row, expected one", column.width);
  std::vector<RawValue> values;
  for (size_t i = 0; i < column.data.size(); ++i) {
    auto value = raw(column, *column.data[i]);
    if (!value) return value.error().within(fmt::format("row {}", i / column.width));
    values.push_back(*value);
  }
  if (number < features.numeric.size()) return builder.add_number(number, values);
  if (!several) return builder.add_ids(slot, values);
  std::vector<std::vector<RawValue>> rows(column.rows);
  for (size_t i = 0; i < values.size(); ++i)
    if (!fills_up(values[i])) rows[i / column.width].push_back(values[i]);
  return builder.add_several(slot, rows);
}

Result<std::vector<std::string>> read_outputs(const json& body) {
  std::vector<std::string> names;
  for (const json& output : body.value("outputs", json::array())) {
    const std::string name = output.is_object() && output.contains("name") && output["name"].is_string()
                                 ? output["name"].get<std::string>()
                                 : text_of(output);
    if (!is_one_of(name, kOutputs)) return invalid("outputs: got '{}', expected score or logit", name);
    names.push_back(name);
  }
  return names;
}

json tensor(const char* name, const char* datatype, json data) {
  return {{"name", name}, {"datatype", datatype}, {"shape", {data.size()}}, {"data", std::move(data)}};
}

}  // namespace

std::variant<InferRequest, HttpError> parse_infer_request(std::string_view body,
                                                          const EncodedFeatures& features, int64_t max_rows) {
  auto parsed = parse_body(body);
  if (auto* error = std::get_if<HttpError>(&parsed)) return *error;
  const json& request = *std::get<std::shared_ptr<const json>>(parsed);
  InferRequest out;
  if (request.contains("id") && request["id"].is_string()) out.id = request["id"];
  auto outputs = read_outputs(request);
  if (!outputs) return bad_tensor(outputs.error().message, "outputs");
  out.outputs = *outputs;
  if (!request.contains("inputs") || !request["inputs"].is_array())
    return bad_tensor("inputs is missing, or no list", "inputs");
  BatchBuilder builder(features);
  for (const json& input : request["inputs"]) {
    auto column = read_column(input);
    if (!column) return bad_tensor(column.error().message, "inputs");
    if (static_cast<int64_t>(column->rows) > max_rows)
      return bad_tensor(
          fmt::format("input '{}': {} rows, at most {} in one request", column->name, column->rows, max_rows),
          column->name);
    Status status = add(builder, features, *column);
    if (!status.ok())
      return bad_tensor(fmt::format("input '{}': {}", column->name, status.error().message), column->name);
  }
  if (auto field = builder.missing()) return bad_tensor(fmt::format("inputs: {} is missing", *field), *field);
  out.batch = builder.take();
  return out;
}

std::string infer_response(const InferRequest& request, const Scores& scores, const std::string& model_name) {
  json out = {{"model_name", model_name}, {"model_version", fmt::format("{}", scores.version)}};
  if (!request.id.empty()) out["id"] = request.id;
  json& outputs = out["outputs"] = json::array();
  for (const std::string& name :
       request.outputs.empty() ? std::vector<std::string>{"score"} : request.outputs) {
    json data = json::array();
    for (float logit : scores.logits)
      data.push_back(name == "score" ? probability_of(logit) : static_cast<double>(logit));
    outputs.push_back(name == "score" ? tensor("score", "FP64", std::move(data))
                                      : tensor("logit", "FP32", std::move(data)));
  }
  return text_of(out);
}

std::string server_metadata(const std::string& version) {
  return text_of({{"name", "tessera"}, {"version", version}, {"extensions", json::array()}});
}

std::string model_metadata(const std::string& model_name, int64_t version, const EncodedFeatures& features) {
  json inputs = json::array();
  for (const auto& name : features.numeric)
    inputs.push_back({{"name", name}, {"datatype", "FP64"}, {"shape", {-1}}});
  for (size_t s = 0; s < features.slots.size(); ++s) {
    const auto& encoding = features.id_encodings[s];
    const bool whole = encoding.kind == recsys_data::IdEncoding::Kind::below ||
                       encoding.kind == recsys_data::IdEncoding::Kind::number;
    inputs.push_back({{"name", features.slots[s]},
                      {"datatype", whole ? "INT64" : "BYTES"},
                      {"shape", encoding.several ? json{-1, -1} : json{-1}}});
  }
  return text_of({{"name", model_name},
                  {"versions", {fmt::format("{}", version)}},
                  {"platform", "tessera_recsys"},
                  {"inputs", inputs},
                  {"outputs",
                   {{{"name", "score"}, {"datatype", "FP64"}, {"shape", {-1}}},
                    {{"name", "logit"}, {"datatype", "FP32"}, {"shape", {-1}}}}}});
}

}  // namespace tessera::recsys_serve
