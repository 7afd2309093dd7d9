#include "kserve/tensors.h"

#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

namespace tessera::kserve {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the protocol's bytes are read as they are");

namespace {

constexpr int64_t kMaxElements = int64_t{1} << 26;

struct NumberType {
  std::string_view name;
  int64_t bytes;
  bool (*append)(const json& value, std::string& raw);  // false when the value is none of this type
  json (*read)(const char* bytes);
};

template <class T>
bool holds(const json& value) {
  if constexpr (std::is_same_v<T, bool>)
    return value.is_boolean();
  else if constexpr (std::is_floating_point_v<T>)
    return value.is_number();
  else if (value.is_number_unsigned())
    return std::in_range<T>(value.get<uint64_t>());
  else
    return value.is_number_integer() && std::in_range<T>(value.get<int64_t>());
}

template <class T>
NumberType number_type(std::string_view name) {
  return {.name = name,
          .bytes = sizeof(T),
          .append =
              [](const json& value, std::string& raw) {
                if (!holds<T>(value)) return false;
                T number = value.get<T>();
                raw.append(reinterpret_cast<const char*>(&number), sizeof(T));
                return true;
              },
          .read =
              [](const char* bytes) {
                T number;
                std::memcpy(&number, bytes, sizeof(T));
                return json(number);
              }};
}

const NumberType* number_type_of(std::string_view datatype) {
  static const std::array kTypes = {
      number_type<bool>("BOOL"),       number_type<uint8_t>("UINT8"),   number_type<uint16_t>("UINT16"),
      number_type<uint32_t>("UINT32"), number_type<uint64_t>("UINT64"), number_type<int8_t>("INT8"),
      number_type<int16_t>("INT16"),   number_type<int32_t>("INT32"),   number_type<int64_t>("INT64"),
      number_type<float>("FP32"),      number_type<double>("FP64")};
  for (const NumberType& type : kTypes)
    if (type.name == datatype) return &type;
  return nullptr;
}

void append_text(const std::string& text, std::string& raw) {
  auto length = static_cast<uint32_t>(text.size());
  raw.append(reinterpret_cast<const char*>(&length), sizeof(length));
  raw += text;
}

// Calls `take` for each text; false when the bytes are torn.
template <class Take>
bool walk_texts(std::string_view raw, Take take) {
  while (!raw.empty()) {
    uint32_t length;
    if (raw.size() < sizeof(length)) return false;
    std::memcpy(&length, raw.data(), sizeof(length));
    raw.remove_prefix(sizeof(length));
    if (raw.size() < length) return false;
    take(raw.substr(0, length));
    raw.remove_prefix(length);
  }
  return true;
}

void flatten(const json& data, std::vector<const json*>& elements, int depth) {
  constexpr int kMaxNesting = 32;
  if (!data.is_array() || depth > kMaxNesting) return elements.push_back(&data);
  for (const json& item : data) flatten(item, elements, depth + 1);
}

std::string shown(const json& value) {
  constexpr size_t kLongest = 60;
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, kLongest);
}

Result<json> one_number(const Tensor& tensor) {
  const NumberType* type = number_type_of(tensor.datatype);
  if (!type) return invalid("tensor '{}' must be a number, not {}", tensor.name, tensor.datatype);
  if (tensor.num_elements() != 1)
    return invalid("tensor '{}' must have one element, not {}", tensor.name, tensor.num_elements());
  return type->read(tensor.raw.data());
}

}  // namespace

int64_t Tensor::num_elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

std::optional<int64_t> element_bytes(std::string_view datatype) {
  if (datatype == "BYTES") return 0;
  if (datatype == "FP16" || datatype == "BF16") return 2;
  const NumberType* type = number_type_of(datatype);
  return type ? std::optional(type->bytes) : std::nullopt;
}

Status check(const Tensor& tensor) {
  auto bytes = element_bytes(tensor.datatype);
  if (!bytes) return invalid("tensor '{}' has the unknown datatype '{}'", tensor.name, tensor.datatype);
  int64_t count = 1;
  for (int64_t dim : tensor.shape) {
    if (dim < 0 || (dim > 0 && count > kMaxElements / dim))
      return invalid("tensor '{}': its shape is negative or has more than {} elements", tensor.name,
                     kMaxElements);
    count *= dim;
  }
  if (*bytes > 0 && std::ssize(tensor.raw) != count * *bytes)
    return invalid("tensor '{}' has {} bytes, but {} elements of {} need {}", tensor.name, tensor.raw.size(),
                   count, tensor.datatype, count * *bytes);
  if (*bytes > 0) return {};
  int64_t texts = 0;
  bool whole = walk_texts(tensor.raw, [&](std::string_view) { ++texts; });
  if (whole && texts == count) return {};
  return invalid("tensor '{}' should have {} texts, each after its length in 4 bytes; its {} bytes {}",
                 tensor.name, count, tensor.raw.size(), whole ? fmt::format("have {}", texts) : "are torn");
}

Tensor text_tensor(std::string name, const std::vector<std::string>& texts) {
  Tensor tensor{.name = std::move(name), .datatype = "BYTES", .shape = {std::ssize(texts)}, .raw = {}};
  for (const std::string& text : texts) append_text(text, tensor.raw);
  return tensor;
}

Result<std::vector<std::string>> texts_of(const Tensor& tensor) {
  if (tensor.datatype != "BYTES")
    return invalid("tensor '{}' must be BYTES, not {}", tensor.name, tensor.datatype);
  std::vector<std::string> texts;
  walk_texts(tensor.raw, [&](std::string_view text) { texts.emplace_back(text); });
  return texts;
}

Result<std::string> text_of(const Tensor& tensor) {
  TESSERA_ASSIGN_OR_RETURN(auto texts, texts_of(tensor));
  if (texts.size() != 1) return invalid("tensor '{}' must have one element, not {}", tensor.name, texts.size());
  return texts[0];
}

Result<bool> bool_of(const Tensor& tensor) {
  TESSERA_ASSIGN_OR_RETURN(json value, one_number(tensor));
  if (!value.is_boolean()) return invalid("tensor '{}' must be BOOL, not {}", tensor.name, tensor.datatype);
  return value.get<bool>();
}

Result<int64_t> integer_of(const Tensor& tensor) {
  TESSERA_ASSIGN_OR_RETURN(json value, one_number(tensor));
  if (!value.is_number_integer())
    return invalid("tensor '{}' must be of integers, not {}", tensor.name, tensor.datatype);
  return value.get<int64_t>();
}

Result<double> number_of(const Tensor& tensor) {
  TESSERA_ASSIGN_OR_RETURN(json value, one_number(tensor));
  if (!value.is_number()) return invalid("tensor '{}' must be a number, not {}", tensor.name, tensor.datatype);
  return value.get<double>();
}

Status fill_from_json(const json& data, Tensor& tensor) {
  std::vector<const json*> elements;
  flatten(data, elements, 0);
  const NumberType* type = number_type_of(tensor.datatype);
  bool texts = tensor.datatype == "BYTES";
  if (!type && !texts)
    return invalid("tensor '{}': datatype '{}' cannot be sent as JSON", tensor.name, tensor.datatype);
  for (const json* element : elements) {
    bool fits = texts ? element->is_string() : type->append(*element, tensor.raw);
    if (!fits)
      return invalid("tensor '{}': 'data' must be a list of {} elements, got {}", tensor.name, tensor.datatype,
                     shown(*element));
    if (texts) append_text(element->get_ref<const std::string&>(), tensor.raw);
  }
  return {};
}

json to_json_data(const Tensor& tensor) {
  json data = json::array();
  if (tensor.datatype == "BYTES") {
    walk_texts(tensor.raw, [&](std::string_view text) { data.push_back(text); });
    return data;
  }
  const NumberType* type = number_type_of(tensor.datatype);
  for (size_t at = 0; type && at < tensor.raw.size(); at += static_cast<size_t>(type->bytes))
    data.push_back(type->read(tensor.raw.data() + at));
  return data;
}

}  // namespace tessera::kserve
