#include "checkpoint/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/boxes.h"
#include "checkpoint/guard.h"

namespace tessera::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little endian");

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kLargestHeader = 100'000'000;  // the limit of the safetensors library

struct TypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array kTypes = {
    TypeName{"F64", at::kDouble},
    TypeName{"F32", at::kFloat},
    TypeName{"F16", at::kHalf},
    TypeName{"BF16", at::kBFloat16},
    TypeName{"I64", at::kLong},
    TypeName{"I32", at::kInt},
    TypeName{"I16", at::kShort},
    TypeName{"I8", at::kChar},
    TypeName{"U8", at::kByte},
    TypeName{"BOOL", at::kBool},
    TypeName{"U16", at::kUInt16},
    TypeName{"U32", at::kUInt32},
    TypeName{"U64", at::kUInt64},
    TypeName{"F8_E4M3", at::kFloat8_e4m3fn},
    TypeName{"F8_E5M2", at::kFloat8_e5m2},
    TypeName{"F8_E8M0", at::kFloat8_e8m0fnu},
};

template <class... Args>
Error torn(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::data_loss, format, std::forward<Args>(args)...);
}

Result<std::vector<int64_t>> parse_counts(const nlohmann::json& value, const std::string& name,
                                          const char* field) {
  std::vector<int64_t> counts;
  if (!value.is_array()) return torn("tensor {}: {} is not a list", name, field);
  for (const auto& entry : value) {
    bool fits = entry.is_number_unsigned() && entry.get<uint64_t>() <= INT64_MAX;
    if (!fits) return torn("tensor {}: {} has {}, not a whole number of 0 or more", name, field, entry.dump());
    counts.push_back(entry.get<int64_t>());
  }
  return counts;
}

// Bytes of a tensor, or nothing when they do not fit 64 bits.
std::optional<int64_t> bytes_of_shape(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype));
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (int64_t size : shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  return bytes;
}

Result<StoredTensor> parse_tensor(const std::string& name, const nlohmann::json& entry) {
  for (const char* field : {"dtype", "shape", "data_offsets"})
    if (!entry.is_object() || !entry.contains(field)) return torn("tensor {}: no {}", name, field);
  if (!entry["dtype"].is_string()) return torn("tensor {}: dtype is not a text", name);
  StoredTensor tensor;
  auto dtype = parse_stored_name(entry["dtype"].get<std::string>());
  if (!dtype) return dtype.error().within("tensor " + name);
  tensor.dtype = *dtype;
  TESSERA_ASSIGN_OR_RETURN(tensor.shape, parse_counts(entry["shape"], name, "shape"));
  TESSERA_ASSIGN_OR_RETURN(auto range, parse_counts(entry["data_offsets"], name, "data_offsets"));
  if (range.size() != 2 || range[0] > range[1])
    return torn("tensor {}: data_offsets are {}, not a begin and an end", name, entry["data_offsets"].dump());
  tensor.begin = range[0], tensor.end = range[1];
  auto bytes = bytes_of_shape(tensor.shape, tensor.dtype);
  if (!bytes || *bytes != range[1] - range[0])
    return torn("tensor {}: shape {} of {} needs {} bytes but data_offsets span {}", name,
                describe_shape(tensor.shape), entry["dtype"].get<std::string>(),
                bytes ? std::to_string(*bytes) : "more than 2^63", range[1] - range[0]);
  return tensor;
}

// Tensors must tile the data: sorted by place, each begins where the one before ended.
Status check_tiling(const std::map<std::string, StoredTensor>& tensors, int64_t data_bytes) {
  std::vector<std::pair<const std::string*, const StoredTensor*>> order;
  for (const auto& [name, tensor] : tensors) order.emplace_back(&name, &tensor);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  int64_t at = 0;
  for (const auto& [name, tensor] : order) {
    if (tensor->begin < at)
      return torn("tensor {} overlaps another: it begins at {}, before {}", *name, tensor->begin, at);
    if (tensor->begin > at)
      return torn("tensor {} begins at {}, after a hole from {}", *name, tensor->begin, at);
    at = tensor->end;
  }
  if (at > data_bytes)
    return torn("truncated: tensors need {} bytes of data but the file has {}", at, data_bytes);
  if (at < data_bytes) return torn("{} bytes after the last tensor belong to no tensor", data_bytes - at);
  return {};
}

// The header as JSON; a name that comes twice is an error, because readers differ in which one they take.
Result<nlohmann::json> parse_json_header(std::span<const std::byte> text) {
  std::set<std::string> names;
  std::string twice;
  auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key &&
        !names.insert(parsed.get<std::string>()).second)
      twice = parsed.get<std::string>();
    return true;
  };
  const char* begin = reinterpret_cast<const char*>(text.data());
  auto object = nlohmann::json::parse(begin, begin + text.size(), watch, false);
  if (object.is_discarded() || !object.is_object()) return torn("the header is not a JSON object");
  if (!twice.empty()) return torn("the header names tensor {} twice", twice);
  return object;
}

Result<SafetensorsHeader> parse_header(std::span<const std::byte> head, int64_t file_bytes) {
  if (file_bytes < kLengthBytes || head.size() < kLengthBytes)
    return torn("truncated: {} bytes, too short for a safetensors file", file_bytes);
  uint64_t length = 0;
  std::memcpy(&length, head.data(), kLengthBytes);
  if (length > kLargestHeader)
    return torn("the header would be {} bytes long, more than the format allows: not a safetensors file",
                length);
  if (length > static_cast<uint64_t>(file_bytes - kLengthBytes) || length > head.size() - kLengthBytes)
    return torn("truncated: the header is {} bytes long but the file ends at byte {}", length, file_bytes);
  TESSERA_ASSIGN_OR_RETURN(auto object, parse_json_header(head.subspan(kLengthBytes, length)));
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(length);
  for (const auto& [name, entry] : object.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return torn("__metadata__ is not an object");
      for (const auto& [key, value] : entry.items())
        header.metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(header.tensors[name], parse_tensor(name, entry));
  }
  TESSERA_RETURN_IF_ERROR(check_tiling(header.tensors, file_bytes - header.data_begin));
  for (auto& [name, tensor] : header.tensors)
    tensor.begin += header.data_begin, tensor.end += header.data_begin;
  return header;
}

}  // namespace

int64_t StoredTensor::elements() const {
  return whole_box(shape).elements();
}

Result<std::string> stored_name(at::ScalarType dtype) {
  for (const TypeName& type : kTypes)
    if (type.dtype == dtype) return std::string(type.name);
  return invalid("safetensors has no name for tensors of {}", c10::toString(dtype));
}

Result<at::ScalarType> parse_stored_name(const std::string& name) {
  std::vector<std::string> known;
  for (const TypeName& type : kTypes) {
    if (name == type.name) return type.dtype;
    known.push_back(type.name);
  }
  return torn("unknown dtype '{}'; known: {}", name, fmt::join(known, ", "));
}

Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> head, int64_t file_bytes) {
  return guarded("header", [&] { return parse_header(head, file_bytes); });
}

Result<SafetensorsPlan> plan_safetensors(const std::vector<std::pair<std::string, StoredTensor>>& tensors) {
  SafetensorsPlan plan;
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};  // transformers asks for the format
  int64_t at = 0;
  for (auto [name, tensor] : tensors) {
    TESSERA_ASSIGN_OR_RETURN(std::string dtype, stored_name(tensor.dtype));
    auto bytes = bytes_of_shape(tensor.shape, tensor.dtype);
    if (!bytes) return invalid("tensor {} of shape {} is too big", name, describe_shape(tensor.shape));
    tensor.begin = at, tensor.end = at + *bytes;
    at = tensor.end;
    header[name] = {{"dtype", dtype}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
    plan.tensors.push_back(std::move(tensor));
  }
  std::string text = header.dump();
  text.append((64 - (text.size() + kLengthBytes) % 64) % 64, ' ');
  uint64_t length = text.size();
  plan.head.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  plan.head += text;
  int64_t data_begin = static_cast<int64_t>(plan.head.size());
  for (StoredTensor& tensor : plan.tensors) tensor.begin += data_begin, tensor.end += data_begin;
  plan.file_bytes = data_begin + at;
  return plan;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  auto header = parse_safetensors_header(file.bytes(), static_cast<int64_t>(file.bytes().size()));
  if (!header) return header.error().within(path.string());
  return SafetensorsFile(path, std::move(file), std::move(*header));
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  auto found = header_.tensors.find(name);
  return found == header_.tensors.end() ? nullptr : &found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return file_.bytes().subspan(static_cast<size_t>(tensor.begin),
                               static_cast<size_t>(tensor.end - tensor.begin));
}

}  // namespace tessera::checkpoint
