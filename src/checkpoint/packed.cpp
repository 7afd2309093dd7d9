#include "checkpoint/packed.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <nlohmann/json.hpp>

#include "checkpoint/guard.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/machine.h"
#include "core/nearest.h"
#include "kernels/large_pages.h"
#include "kernels/threads.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
using kernels::QuantKind;
using kernels::QuantShape;
using nlohmann::json;

constexpr const char* kPackedFormat = "tessera-packed";
constexpr int64_t kCopiedAtOnce = int64_t{4} << 20;  // bytes
constexpr int64_t kMost = int64_t{1} << 31;          // of a dimension: keeps products of sizes within 64 bits
constexpr QuantKind kKinds[] = {QuantKind::int8, QuantKind::int4, QuantKind::int4_offset, QuantKind::int4_zero};

std::optional<QuantKind> kind_named(const std::string& name) {
  for (QuantKind kind : kKinds)
    if (name == kernels::to_string(kind)) return kind;
  return std::nullopt;
}

Error broken(const std::string& what) {
  return {ErrorCode::data_loss, fmt::format("{}: {}; export the model again", kPackedManifest, what)};
}

Result<PackedTensor> parse_packed_tensor(const std::string& name, const json& entry) {
  PackedTensor tensor{.shape = {}, .xxh3 = entry.at("xxh3").get<std::string>()};
  if (!entry.contains("kind")) return tensor;
  auto kind = kind_named(entry["kind"].get<std::string>());
  if (!kind) return broken(fmt::format("{} has the unknown kind {}", name, entry["kind"].dump()));
  QuantShape shape{.kind = *kind, .n = entry.at("n"), .k = entry.at("k"), .blocks = entry.at("blocks")};
  bool sane = shape.n > 0 && shape.n < kMost && shape.k > 0 && shape.k < kMost && shape.blocks > 0 &&
              shape.k % shape.blocks == 0;
  if (!sane) return broken(fmt::format("{} is [{}, {}] in {} blocks", name, shape.n, shape.k, shape.blocks));
  tensor.shape = shape;
  return tensor;
}

Status check_stored(const SafetensorsFile& file, const PackedIndex& index) {
  for (const auto& [name, tensor] : index.tensors) {
    const StoredTensor* stored = file.find(name);
    if (stored == nullptr) return broken(fmt::format("{} has no tensor {}", kPackedFile, name));
    if (!tensor.shape) {
      if (!c10::isFloatingType(stored->dtype) || c10::elementSize(stored->dtype) < 2)
        return broken(fmt::format("{} is neither quantised nor of floats", name));
      continue;
    }
    int64_t bytes = stored->end - stored->begin;
    if (stored->dtype != at::kByte || bytes != tensor.shape->bytes() || stored->begin % 64 != 0)
      return broken(fmt::format("{} takes {} bytes at {}, but {} [{}, {}] has {} at a multiple of 64", name,
                                bytes, stored->begin, kernels::to_string(tensor.shape->kind), tensor.shape->n,
                                tensor.shape->k, tensor.shape->bytes()));
  }
  return {};
}

}  // namespace

std::string to_text(const PackedIndex& index) {
  json tensors = json::object();
  for (const auto& [name, tensor] : index.tensors) {
    json& entry = tensors[name] = {{"xxh3", tensor.xxh3}};
    if (!tensor.shape) continue;
    entry["kind"] = kernels::to_string(tensor.shape->kind);
    entry["n"] = tensor.shape->n, entry["k"] = tensor.shape->k, entry["blocks"] = tensor.shape->blocks;
  }
  json value = {{"format", kPackedFormat},
                {"version", 1},
                {"tp_blocks", index.tp_blocks},
                {"head_xxh3", index.head_xxh3}};
  value["tensors"] = std::move(tensors);
  return value.dump(1) + "\n";
}

Result<PackedIndex> parse_packed_index(const std::string& text) {
  try {
    json value = json::parse(text);
    if (value.at("format") != kPackedFormat || value.at("version") != 1)
      return broken(fmt::format("format {} version {}, expected {} version 1", value["format"].dump(),
                                value["version"].dump(), kPackedFormat));
    PackedIndex index{.tp_blocks = value.at("tp_blocks"), .head_xxh3 = value.at("head_xxh3"), .tensors = {}};
    if (index.tp_blocks < 1 || index.tp_blocks > 1024) return broken("tp_blocks is not 1 to 1024");
    for (const auto& [name, entry] : value.at("tensors").items()) {
      TESSERA_ASSIGN_OR_RETURN(index.tensors[name], parse_packed_tensor(name, entry));
    }
    return index;
  } catch (const json::exception& error) {
    return broken(error.what());
  }
}

bool PackedModel::is_at(const fs::path& directory) {
  return fs::exists(directory / kPackedFile);
}

Result<PackedModel> PackedModel::open(const fs::path& directory) {
  return guarded(directory.string(), [&]() -> Result<PackedModel> {
    TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(directory / kPackedManifest));
    auto index = parse_packed_index(text);
    if (!index) return index.error().within(directory.string());
    TESSERA_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(directory / kPackedFile));
    if (Status status = check_stored(file, *index); !status.ok())
      return status.error().within(directory.string());
    return PackedModel(std::make_shared<const SafetensorsFile>(std::move(file)), std::move(*index));
  });
}

std::vector<std::string> PackedModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : index_.tensors) names.push_back(name);
  return names;
}

Result<const PackedTensor*> PackedModel::find(const std::string& name) const {
  auto found = index_.tensors.find(name);
  if (found != index_.tensors.end()) return &found->second;
  return make_error(ErrorCode::not_found, "{}: no tensor {}{}", file_->path().string(), name,
                    did_you_mean(name, names()));
}

bool PackedModel::is_quantised(const std::string& name) const {
  auto found = index_.tensors.find(name);
  return found != index_.tensors.end() && found->second.shape.has_value();
}

Result<std::vector<int64_t>> PackedModel::shape(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(const PackedTensor* tensor, find(name));
  if (tensor->shape) return std::vector<int64_t>{tensor->shape->n, tensor->shape->k};
  return file_->find(name)->shape;
}

Result<at::ScalarType> PackedModel::dtype(const std::string& name) const {
  TESSERA_RETURN_IF_ERROR(find(name));
  return file_->find(name)->dtype;
}

at::Tensor PackedModel::view(const StoredTensor& stored) const {
  if (copy_.defined())
    return at::from_blob(
        copy_.data_ptr<uint8_t>() + stored.begin, stored.shape, [copy = copy_](void*) {},
        at::TensorOptions().dtype(stored.dtype));
  auto* data = const_cast<std::byte*>(file_->bytes(stored).data());
  return at::from_blob(
      data, stored.shape, [file = file_](void*) {}, at::TensorOptions().dtype(stored.dtype));
}

Result<kernels::QuantWeight> PackedModel::weight(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(const PackedTensor* tensor, find(name));
  if (!tensor->shape) return invalid("{}: {} is not quantised", file_->path().string(), name);
  return kernels::QuantWeight(*tensor->shape, view(*file_->find(name)));
}

Result<at::Tensor> PackedModel::floats(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(const PackedTensor* tensor, find(name));
  if (tensor->shape) return invalid("{}: {} is quantised", file_->path().string(), name);
  return view(*file_->find(name));
}

Result<at::Tensor> PackedModel::dequantised(const std::string& name, const Extent& box) const {
  TESSERA_ASSIGN_OR_RETURN(kernels::QuantWeight from, weight(name));
  at::Tensor values = at::empty(box.size);
  std::vector<float> row(static_cast<size_t>(from.k()));
  for (int64_t i = 0; i < box.size[0]; ++i) {
    from.dequantize_row(box.offset[0] + i, row);
    std::copy_n(row.begin() + box.offset[1], box.size[1], values.data_ptr<float>() + i * box.size[1]);
  }
  return values;
}

void PackedModel::read_ahead() const {
  std::span<const std::byte> all = file_->all_bytes();
  madvise(const_cast<std::byte*>(all.data()), all.size(), MADV_POPULATE_READ);
}

bool PackedModel::copy_to_large_pages() {
  const auto all = file_->all_bytes();
  if (this_machine().available_bytes < std::ssize(all) / 4 * 5) return false;
  at::Tensor copy = kernels::large_bytes(std::ssize(all));
  kernels::parallel_ranges(std::ssize(all), kCopiedAtOnce, [&](int64_t begin, int64_t end) {
    std::memcpy(copy.data_ptr<uint8_t>() + begin, all.data() + begin, static_cast<size_t>(end - begin));
  });
  copy_ = copy;
  return true;
}

std::vector<Error> PackedModel::verify() const {
  std::vector<Error> damages;
  auto check = [&](const std::string& what, std::span<const std::byte> bytes, const std::string& expected) {
    std::string got = hex(hash64(bytes));
    if (got != expected)
      damages.push_back(
          {ErrorCode::data_loss, fmt::format("{}: {} has hash {} but {} says {}", file_->path().string(), what,
                                             got, kPackedManifest, expected)});
  };
  auto head = static_cast<size_t>(file_->header().data_begin);
  check("the header", file_->all_bytes().first(head), index_.head_xxh3);
  for (const auto& [name, tensor] : index_.tensors) check(name, file_->bytes(*file_->find(name)), tensor.xxh3);
  return damages;
}

}  // namespace tessera::checkpoint
