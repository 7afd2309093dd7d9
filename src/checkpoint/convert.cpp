#include "checkpoint/convert.h"

#include "checkpoint/boxes.h"
#include "checkpoint/export_source.h"
#include "checkpoint/guard.h"
#include "checkpoint/state_kind.h"
#include "core/file.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kExtentBytes = 64 << 20;

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

Status export_into(const fs::path& from, const fs::path& directory, const ConvertOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(ExportSource source, ExportSource::open(from));
  FilePlanOptions plan_options{
      .working = options.dtype, .max_file_bytes = options.max_file_bytes, .states = false};
  TESSERA_ASSIGN_OR_RETURN(FilePlan plan, plan_files(source.tensors(), plan_options));
  TESSERA_RETURN_IF_ERROR(create_files(directory, plan));
  ExtentWriter writer(directory, plan, kExtentBytes);
  Meter meter{options, float_bytes(source.tensors())};
  at::Tensor values;
  for (const TensorSpec& tensor : source.tensors()) {
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
