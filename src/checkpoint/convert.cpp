#include "checkpoint/convert.h"

#include <nlohmann/json.hpp>

#include "checkpoint/boxes.h"
#include "checkpoint/builder.h"
#include "checkpoint/guard.h"
#include "checkpoint/reader.h"
#include "checkpoint/state_kind.h"
#include "checkpoint/weight_reader.h"
#include "core/file.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kExtentBytes = 64 << 20;
// Belong to the form at hand, not to the model.
const std::vector<std::string> kOwnFiles = {kManifestFile, kTrainingFile, "model.safetensors.index.json"};

// A directory under construction beside `to`; removed unless it was published.
class Workplace {
 public:
  explicit Workplace(const fs::path& to)
      : to_(without_slash(fs::absolute(to))), path_(to_.parent_path() / temporary_name(0, ".convert-")) {}
  ~Workplace() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  Status publish() const { return publish_directory(path_, to_); }

 private:
  fs::path to_, path_;
};

Status check_target(const fs::path& to) {
  std::error_code ignored;
  if (!fs::exists(to, ignored)) return {};
  return invalid("{} exists already; name a directory that does not", to.string());
}

// The JSON files of a model directory, with config.json's precision changed when `dtype` is given.
Result<TextFiles> side_files(const fs::path& from, const char* dtype) {
  TextFiles texts;
  for (const auto& entry : fs::directory_iterator(from)) {
    std::string name = entry.path().filename().string();
    bool own = std::find(kOwnFiles.begin(), kOwnFiles.end(), name) != kOwnFiles.end();
    if (own || entry.path().extension() != ".json") continue;
    TESSERA_ASSIGN_OR_RETURN(texts[name], read_file(entry.path()));
  }
  auto config = texts.find("config.json");
  if (config == texts.end() || dtype == nullptr) return texts;
  auto json = nlohmann::json::parse(config->second);
  for (const char* key : {"torch_dtype", "dtype"})
    if (json.contains(key) || key == std::string_view("torch_dtype")) json[key] = dtype;
  config->second = json.dump(2) + "\n";
  return texts;
}

// Where an export takes its values: masters of a checkpoint, or weights.
struct Source {
  std::unique_ptr<CheckpointReader> checkpoint;
  std::optional<WeightReader> weights;
  std::vector<TensorSpec> tensors;

  Status read(const TensorSpec& tensor, const Extent& box, at::Tensor& out) {
    out = at::Tensor();
    if (checkpoint) return checkpoint->read(tensor.name, StateKind::master, box, out);
    TESSERA_ASSIGN_OR_RETURN(out, weights->read(tensor.name, box, at::kFloat));
    return {};
  }
};

// The tensors of a checkpoint, in the order of its files.
std::vector<TensorSpec> tensors_of(const Manifest& manifest) {
  std::vector<TensorSpec> tensors;
  for (const ManifestArray& entry : manifest.arrays)
    if (!entry.array.content)
      tensors.push_back({.name = entry.array.tensor, .role = Role::q, .shape = entry.array.shape});
  return tensors;
}

Result<Source> open_source(const fs::path& from) {
  Source source;
  if (fs::exists(from / kManifestFile)) {
    TESSERA_ASSIGN_OR_RETURN(source.checkpoint, CheckpointReader::open(from, Verify::touched));
    source.tensors = tensors_of(source.checkpoint->manifest());
    return source;
  }
  TESSERA_ASSIGN_OR_RETURN(source.weights, WeightReader::open(from));
  for (const std::string& name : source.weights->names()) {
    TensorSpec tensor{.name = name, .role = Role::q};
    TESSERA_ASSIGN_OR_RETURN(tensor.shape, source.weights->shape(name));
    source.tensors.push_back(std::move(tensor));
  }
  TESSERA_RETURN_IF_ERROR(source.weights->check_against(source.tensors));  // refuses types that need scales
  return source;
}

std::span<const float> values_of(const at::Tensor& values) {
  return {values.const_data_ptr<float>(), static_cast<size_t>(values.numel())};
}

// Counts bytes read and tells whoever wants to know.
struct Meter {
  const ConvertOptions& options;
  int64_t total = 0, done = 0;
  void add(const Extent& box) {
    done += box.elements() * static_cast<int64_t>(sizeof(float));
    if (options.progress) options.progress(done, total);
  }
};

int64_t float_bytes(const std::vector<TensorSpec>& tensors) {
  int64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) bytes += tensor.elements() * static_cast<int64_t>(sizeof(float));
  return bytes;
}

Status write_texts(const fs::path& directory, const TextFiles& texts) {
  for (const auto& [name, text] : texts) TESSERA_RETURN_IF_ERROR(write_file_atomically(directory / name, text));
  return sync_directory(directory);
}

Status export_into(const fs::path& from, const fs::path& directory, const ConvertOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(Source source, open_source(from));
  FilePlanOptions plan_options{
      .working = options.dtype, .max_file_bytes = options.max_file_bytes, .states = false};
  TESSERA_ASSIGN_OR_RETURN(FilePlan plan, plan_files(source.tensors, plan_options));
  TESSERA_RETURN_IF_ERROR(create_files(directory, plan));
  ExtentWriter writer(directory, plan, kExtentBytes);
  Meter meter{options, float_bytes(source.tensors)};
  at::Tensor values;
  for (const TensorSpec& tensor : source.tensors) {
    for (const Extent& box : cut(whole_box(tensor.shape), kExtentBytes / 4)) {
      TESSERA_RETURN_IF_ERROR(source.read(tensor, box, values));
      TESSERA_RETURN_IF_ERROR(writer.write_weight(tensor.name, box, values_of(values)));
      meter.add(box);
    }
  }
  TESSERA_RETURN_IF_ERROR(writer.sync());
  TESSERA_ASSIGN_OR_RETURN(TextFiles texts,
                           side_files(from, options.dtype == at::kBFloat16 ? "bfloat16" : "float32"));
  if (!plan.index_json.empty()) texts["model.safetensors.index.json"] = plan.index_json;
  return write_texts(directory, texts);
}

Status reshard_into(const fs::path& from, const fs::path& directory, const ConvertOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto reader, CheckpointReader::open(from, Verify::touched));
  auto tensors = tensors_of(reader->manifest());
  FilePlanOptions plan_options{.working = at::kFloat, .max_file_bytes = options.max_file_bytes};
  if (reader->training().work.precision == Precision::bf16) plan_options.working = at::kBFloat16;
  TESSERA_ASSIGN_OR_RETURN(FilePlan plan, plan_files(tensors, plan_options));
  TESSERA_RETURN_IF_ERROR(create_files(directory, plan));
  ExtentWriter writer(directory, plan, kExtentBytes);
  Meter meter{options, float_bytes(tensors) * static_cast<int64_t>(kStateKinds.size())};
  for (const TensorSpec& tensor : tensors) {
    for (StateKind kind : kStateKinds) {
      for (const Extent& box : cut(whole_box(tensor.shape), kExtentBytes / 4)) {
        at::Tensor values;
        TESSERA_RETURN_IF_ERROR(reader->read(tensor.name, kind, box, values));
        TESSERA_RETURN_IF_ERROR(writer.write(tensor.name, kind, box, values_of(values)));
        meter.add(box);
      }
    }
  }
  TESSERA_RETURN_IF_ERROR(writer.sync());
  TESSERA_ASSIGN_OR_RETURN(TextFiles texts, side_files(from, nullptr));
  TESSERA_ASSIGN_OR_RETURN(texts[kTrainingFile], read_file(from / kTrainingFile));
  return finish_files(directory, plan, writer.written(), reader->manifest().step, std::move(texts));
}

}  // namespace

Status export_model(const fs::path& from, const fs::path& to, const ConvertOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_target(to));
  return guarded("export", [&]() -> Status {
    Workplace workplace(to);
    TESSERA_RETURN_IF_ERROR(export_into(from, workplace.path(), options));
    return workplace.publish();
  });
}

Status reshard(const fs::path& from, const fs::path& to, const ConvertOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_target(to));
  return guarded("reshard", [&]() -> Status {
    Workplace workplace(to);
    TESSERA_RETURN_IF_ERROR(reshard_into(from, workplace.path(), options));
    return workplace.publish();
  });
}

}  // namespace tessera::checkpoint
