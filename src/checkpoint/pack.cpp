#include "checkpoint/pack.h"

#include "checkpoint/boxes.h"
#include "checkpoint/disk.h"
#include "checkpoint/export_source.h"
#include "checkpoint/guard.h"
#include "checkpoint/packed.h"
#include "core/hash.h"
#include "spec/inventory.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
using kernels::QuantKind;
using kernels::QuantShape;

constexpr int64_t kPieceElements = 8 << 20;  // of a matrix that is in memory at once

// How one tensor is stored: quantised, or as floats.
std::optional<QuantShape> packed_shape(const TensorSpec& tensor, const PackOptions& options) {
  bool tied_head = tensor.role == Role::embedding && tensor.uses == 2;
  bool plain =
      tensor.shape.size() != 2 || tensor.role == Role::router || (tensor.role == Role::embedding && !tied_head);
  if (plain) return std::nullopt;
  bool head = tied_head || tensor.role == Role::head;
  bool row_parallel = tensor.role == Role::o || tensor.role == Role::down;
  return QuantShape{.kind = head ? QuantKind::int8 : options.kind,
                    .n = tensor.shape[0],
                    .k = tensor.shape[1],
                    .blocks = row_parallel ? options.tp_blocks : 1};
}

struct Item {
  TensorSpec tensor;
  std::optional<QuantShape> shape;
  StoredTensor stored;
};

// Quantised tensors first: their sizes are multiples of 64, so all of them begin at one.
std::vector<Item> items_of(const ModelSpec& spec, const PackOptions& options) {
  std::vector<Item> items;
  for (TensorSpec& tensor : inventory(spec)) {
    Item item{.tensor = tensor, .shape = packed_shape(tensor, options), .stored = {}};
    item.stored.dtype = item.shape ? at::kByte : options.dtype;
    item.stored.shape = item.shape ? std::vector<int64_t>{item.shape->bytes()} : tensor.shape;
    items.push_back(std::move(item));
  }
  std::stable_partition(items.begin(), items.end(), [](const Item& item) { return item.shape.has_value(); });
  return items;
}

Status check_names(const ExportSource& source, const ModelSpec& spec) {
  std::map<std::string, std::vector<int64_t>> stored;
  for (const TensorSpec& tensor : source.tensors()) stored[tensor.name] = tensor.shape;
  for (const TensorSpec& tensor : inventory(spec)) {
    auto found = stored.find(tensor.name);
    if (found == stored.end()) return invalid("{} is missing; check config.json", tensor.name);
    if (found->second != tensor.shape)
      return invalid("{} is {} but config.json asks for {}", tensor.name, describe_shape(found->second),
                     describe_shape(tensor.shape));
  }
  return {};
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// Writes packed.safetensors from its first byte to its last.
class Packer {
 public:
  Packer(ExportSource& source, const PackOptions& options) : source_(source), options_(options) {}

  Status write(const fs::path& path, const std::vector<Item>& items) {
    std::vector<std::pair<std::string, StoredTensor>> listed;
    for (const Item& item : items) listed.push_back({item.tensor.name, item.stored});
    TESSERA_ASSIGN_OR_RETURN(SafetensorsPlan plan, plan_safetensors(listed));
    TESSERA_ASSIGN_OR_RETURN(OpenFile file, OpenFile::create(path, plan.file_bytes));
    file_ = &file, total_ = plan.file_bytes;
    TESSERA_RETURN_IF_ERROR(append(std::as_bytes(std::span(plan.head))));
    for (const Item& item : items)
      TESSERA_RETURN_IF_ERROR(item.shape ? write_quantised(item) : write_floats(item));
    return file.sync();
  }

 private:
  Status write_floats(const Item& item) {
    at::Tensor values;
    TESSERA_RETURN_IF_ERROR(source_.read(item.tensor, whole_box(item.tensor.shape), values));
    return append(bytes_of(values.to(options_.dtype).contiguous()));
  }

  // Whole panels at a time.
  Status write_quantised(const Item& item) {
    const QuantShape& shape = *item.shape;
    int64_t rows = std::max<int64_t>(kPieceElements / shape.k / kernels::kQuantPanel, 1) * kernels::kQuantPanel;
    for (int64_t first = 0; first < shape.n; first += rows) {
      Extent box{{first, 0}, {std::min(rows, shape.n - first), shape.k}};
      at::Tensor values;
      TESSERA_RETURN_IF_ERROR(source_.read(item.tensor, box, values));
      kernels::QuantWeight piece = kernels::quantize(shape.kind, values, shape.blocks);
      TESSERA_RETURN_IF_ERROR(append(std::as_bytes(piece.bytes())));
    }
    return {};
  }

  Status append(std::span<const std::byte> bytes) {
    TESSERA_RETURN_IF_ERROR(file_->write_at(at_, bytes));
    at_ += std::ssize(bytes);
    if (options_.progress) options_.progress(at_, total_);
    return {};
  }

  ExportSource& source_;
  const PackOptions& options_;
  const OpenFile* file_ = nullptr;
  int64_t at_ = 0, total_ = 0;
};

// What the file says and the hashes of what it holds.
Result<PackedIndex> index_of(const fs::path& path, const std::vector<Item>& items, int64_t tp_blocks) {
  TESSERA_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(path));
  auto head = static_cast<size_t>(file.header().data_begin);
  PackedIndex index{
      .tp_blocks = tp_blocks, .head_xxh3 = hex(hash64(file.all_bytes().first(head))), .tensors = {}};
  for (const Item& item : items) {
    const StoredTensor& stored = *file.find(item.tensor.name);
    index.tensors[item.tensor.name] = {.shape = item.shape, .xxh3 = hex(hash64(file.bytes(stored)))};
  }
  return index;
}

Status pack_into(const fs::path& from, const fs::path& directory, const PackOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(ModelSpec spec, load_model_spec(from));
  TESSERA_ASSIGN_OR_RETURN(ExportSource source, ExportSource::open(from));
  if (Status status = check_names(source, spec); !status.ok()) return status.error().within(from.string());
  fs::create_directories(directory);
  std::vector<Item> items = items_of(spec, options);
  TESSERA_RETURN_IF_ERROR(Packer(source, options).write(directory / kPackedFile, items));
  TESSERA_ASSIGN_OR_RETURN(PackedIndex index, index_of(directory / kPackedFile, items, options.tp_blocks));
  TESSERA_ASSIGN_OR_RETURN(TextFiles texts,
                           side_files(from, options.dtype == at::kBFloat16 ? "bfloat16" : "float32"));
  texts[kPackedManifest] = to_text(index);
  return write_texts(directory, texts);
}

}  // namespace

Result<QuantKind> parse_quant_kind(const std::string& text) {
  for (QuantKind kind : {QuantKind::int8, QuantKind::int4, QuantKind::int4_offset})
    if (text == kernels::to_string(kind)) return kind;
  return invalid("--quantize {}: expected int8, int4 or int4-offset", text);
}

Status pack_model(const fs::path& from, const fs::path& to, const PackOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_target(to));
  return guarded("export", [&]() -> Status {
    Workplace workplace(to);
    TESSERA_RETURN_IF_ERROR(pack_into(from, workplace.path(), options));
    return workplace.publish();
  });
}

}  // namespace tessera::checkpoint
