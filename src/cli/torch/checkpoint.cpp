// tessera checkpoint inspect|verify|reshard|export: what a checkpoint holds, whether it is whole, other forms
// of it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "checkpoint/boxes.h"
#include "checkpoint/convert.h"
#include "checkpoint/pack.h"
#include "checkpoint/packed.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_reader.h"
#include "cli/commands.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/progress.h"
#include "kernels/kernels.h"
#include "serve/model.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointReader;
using nlohmann::json;

struct CheckpointOptions {
  std::string directory, json, to, dtype = "bf16", quantize;
  double max_file_gib = 5;
};

// DIR itself, or the newest step-N in it or in its checkpoints/.
fs::path resolve(const fs::path& given) {
  fs::path directory = checkpoint::without_slash(given);
  if (fs::exists(directory / checkpoint::kManifestFile)) return directory;
  for (const fs::path& folder : {directory, directory / "checkpoints"})
    if (auto newest = checkpoint::latest_checkpoint(folder)) return *newest;
  return directory;
}

std::string size_text(double bytes) {
  if (bytes < 10 * 1024) return fmt::format("{:.0f} B", bytes);
  if (bytes < 10.0 * (1 << 20)) return fmt::format("{:.1f} KiB", bytes / 1024);
  if (bytes < 10.0 * (1 << 30)) return fmt::format("{:.1f} MiB", bytes / (1 << 20));
  return fmt::format("{:.2f} GiB", bytes / (1 << 30));
}

// With --json -, standard output is the JSON's alone.
FILE* text_output(const CheckpointOptions& options) {
  return options.json == "-" ? stderr : stdout;
}

Status write_json(const CheckpointOptions& options, const json& value) {
  if (options.json.empty()) return {};
  std::string text = value.dump(2) + "\n";
  if (options.json != "-") return write_file_atomically(options.json, text);
  std::fputs(text.c_str(), stdout);
  return {};
}

// One line of the table: a tensor and what is stored of it.
struct Row {
  std::string dtype, content, file;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  size_t extents = 0;
};
using Table = std::vector<std::pair<std::string, Row>>;

Table table_of(const checkpoint::Manifest& manifest) {
  Table table;
  for (const auto& [array, extents] : manifest.arrays) {
    int64_t elements = checkpoint::whole_box(array.shape).elements();
    table.push_back({array.tensor,
                     {*checkpoint::stored_name(array.dtype), checkpoint::to_string(array.content),
                      manifest.files[array.file].name, array.shape,
                      elements * static_cast<int64_t>(c10::elementSize(array.dtype)), extents.size()}});
  }
  return table;
}

Result<Table> table_of(const checkpoint::WeightReader& weights) {
  Table table;
  for (const std::string& name : weights.names()) {
    TESSERA_ASSIGN_OR_RETURN(auto shape, weights.shape(name));
    TESSERA_ASSIGN_OR_RETURN(at::ScalarType dtype, weights.dtype(name));
    TESSERA_ASSIGN_OR_RETURN(std::string dtype_name, checkpoint::stored_name(dtype));
    int64_t bytes = checkpoint::whole_box(shape).elements() * static_cast<int64_t>(c10::elementSize(dtype));
    table.push_back({name, {dtype_name, "weight", "", std::move(shape), bytes, 0}});
  }
  return table;
}

json table_json(const Table& table) {
  json rows = json::array();
  for (const auto& [tensor, row] : table)
    rows.push_back({{"tensor", tensor},
                    {"content", row.content},
                    {"dtype", row.dtype},
                    {"shape", row.shape},
                    {"bytes", row.bytes},
                    {"file", row.file},
                    {"extents", row.extents}});
  return rows;
}

// Weights alone: the states have the same shapes.
void print_table(FILE* out, const Table& table) {
  size_t width = 6;
  for (const auto& [tensor, row] : table) width = std::max(width, tensor.size());
  fmt::print(out, "{:<{}}  {:<5}  {:<16}  {:>10}  {}\n", "tensor", width, "dtype", "shape", "size", "file");
  for (const auto& [tensor, row] : table)
    if (row.content == "weight")
      fmt::print(out, "{:<{}}  {:<5}  {:<16}  {:>10}  {}\n", tensor, width, row.dtype,
                 checkpoint::describe_shape(row.shape), size_text(static_cast<double>(row.bytes)), row.file);
}

// Elements and bytes of all rows of one content.
std::pair<int64_t, int64_t> sums(const Table& table, bool weights) {
  int64_t elements = 0, bytes = 0;
  for (const auto& [tensor, row] : table) {
    if ((row.content == "weight") != weights) continue;
    elements += checkpoint::whole_box(row.shape).elements();
    bytes += row.bytes;
  }
  return {elements, bytes};
}

json record_json(const checkpoint::TrainingRecord& record) {
  json value = {{"step", record.step}, {"seed", record.seed}, {"layout", to_string(record.layout)}};
  value["precision"] = to_string(record.work.precision);
  value["numerics"] = to_string(record.work.numerics);
  value["global_batch"] = record.work.global_batch;
  value["seq"] = record.work.seq;
  return value;
}

Status inspect(const CheckpointOptions& options) {
  fs::path path = resolve(options.directory);
  FILE* out = text_output(options);
  json value = {{"checkpoint", path.string()}};
  Table table;
  if (fs::exists(path / checkpoint::kManifestFile)) {
    TESSERA_ASSIGN_OR_RETURN(auto reader, CheckpointReader::open(path, checkpoint::Verify::none));
    const auto& record = reader->training();
    value.update(record_json(record));
    table = table_of(reader->manifest());
    fmt::print(out, "{}: step {}, saved as {}, {}, {} numerics, {} sequences of {} tokens a step\n\n",
               path.string(), record.step, to_string(record.layout), to_string(record.work.precision),
               to_string(record.work.numerics), record.work.global_batch, record.work.seq);
  } else {
    TESSERA_ASSIGN_OR_RETURN(auto weights, checkpoint::WeightReader::open(path));
    TESSERA_ASSIGN_OR_RETURN(table, table_of(weights));
    fmt::print(out, "{}: weights alone, no training state\n\n", path.string());
  }
  print_table(out, table);
  auto [parameters, weight_bytes] = sums(table, true);
  int64_t state_bytes = sums(table, false).second;
  fmt::print(out, "\n{} parameters; weights {}, masters and optimizer states {}\n", parameters,
             size_text(static_cast<double>(weight_bytes)), size_text(static_cast<double>(state_bytes)));
  value.update({{"parameters", parameters}, {"weight_bytes", weight_bytes}, {"state_bytes", state_bytes}});
  value["arrays"] = table_json(table);
  return write_json(options, value);
}

int64_t bytes_of_files(const CheckpointReader& reader) {
  int64_t bytes = 0;
  for (const auto& file : reader.manifest().files) bytes += file.bytes;
  return bytes;
}

Status verify_packed(const fs::path& path, const CheckpointOptions& options) {
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(auto model, checkpoint::PackedModel::open(path));
  std::vector<Error> damages = model.verify();
  auto bytes = static_cast<double>(fs::file_size(path / checkpoint::kPackedFile));
  json value = {{"checkpoint", path.string()}, {"bytes", bytes}, {"intact", damages.empty()}};
  value["seconds"] = seconds_since(start);
  value["damages"] = json::array();
  for (const Error& damage : damages) {
    value["damages"].push_back(damage.message);
    report_error(damage);
  }
  if (damages.empty())
    fmt::print(text_output(options), "{}: intact, {} read in {:.1f} s\n", path.string(), size_text(bytes),
               value["seconds"].get<double>());
  return write_json(options, value);
}

Status verify(const CheckpointOptions& options) {
  fs::path path = resolve(options.directory);
  auto start = Clock::now();
  if (checkpoint::PackedModel::is_at(path)) return verify_packed(path, options);
  std::vector<Error> damages;
  json value = {{"checkpoint", path.string()}, {"step", checkpoint::step_of(path)}, {"bytes", 0}};
  auto reader = CheckpointReader::open(path, checkpoint::Verify::none);
  if (reader) {
    damages = (*reader)->verify();
    value["step"] = (*reader)->training().step;
    value["bytes"] = bytes_of_files(**reader);
  } else {
    damages.push_back(reader.error());
  }
  double seconds = seconds_since(start);
  value.update({{"seconds", seconds}, {"intact", damages.empty()}, {"damages", json::array()}});
  for (const Error& damage : damages) {
    value["damages"].push_back(damage.message);
    report_error(damage);
  }
  if (damages.empty())
    fmt::print(text_output(options), "{}: intact, {} in {} files read in {:.1f} s\n", path.string(),
               size_text(value["bytes"].get<double>()), (*reader)->manifest().files.size(), seconds);
  return write_json(options, value);
}

Result<checkpoint::ConvertOptions> convert_options(const CheckpointOptions& options) {
  checkpoint::ConvertOptions convert;
  if (options.dtype != "bf16" && options.dtype != "float32")
    return invalid("--dtype {}: expected float32 or bf16", options.dtype);
  convert.dtype = options.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  if (!(options.max_file_gib > 0))
    return invalid("--max-file-gib {}: expected more than 0", options.max_file_gib);
  convert.max_file_bytes = static_cast<int64_t>(options.max_file_gib * (1 << 30));
  return convert;
}

Status pack(const CheckpointOptions& options, const fs::path& from, const checkpoint::ConvertOptions& convert) {
  checkpoint::PackOptions pack{.dtype = convert.dtype, .progress = convert.progress};
  TESSERA_ASSIGN_OR_RETURN(pack.kind, checkpoint::parse_quant_kind(options.quantize));
  TESSERA_ASSIGN_OR_RETURN(ModelSpec spec, load_model_spec(from));
  pack.tp_blocks = serve::tp_blocks_of(spec);
  kernels::set_kernel_threads(std::max<int64_t>(1, std::thread::hardware_concurrency()));
  return checkpoint::pack_model(from, options.to, pack);
}

Status convert(const CheckpointOptions& options, bool whole) {
  fs::path from = resolve(options.directory);
  TESSERA_ASSIGN_OR_RETURN(auto convert, convert_options(options));
  Progress progress({.label = whole ? "reshard" : "export", .unit = "B"});
  convert.progress = [&](int64_t done, int64_t) { progress.update(done); };
  TESSERA_RETURN_IF_ERROR(whole                      ? checkpoint::reshard(from, options.to, convert)
                          : options.quantize.empty() ? checkpoint::export_model(from, options.to, convert)
                                                     : pack(options, from, convert));
  progress.finish();
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(options.to)) bytes += static_cast<int64_t>(entry.file_size());
  fmt::print(text_output(options), "{} -> {}: {}\n", from.string(), options.to,
             size_text(static_cast<double>(bytes)));
  return write_json(options, {{"from", from.string()}, {"to", options.to}, {"bytes", bytes}});
}

CLI::App* add_command(CLI::App& parent, const char* name, const char* text, CheckpointOptions& options,
                      std::function<Status(const CheckpointOptions&)> body) {
  CLI::App* command = parent.add_subcommand(name, text);
  command
      ->add_option("directory", options.directory, "A checkpoint (step-N), a run with checkpoints, or a model")
      ->required();
  command->add_option("--json", options.json, "Write the result as JSON to this file (- for standard output)");
  command->callback([&options, body] {
    try {
      if (Status status = body(options); !status.ok()) report_error(status.error());
    } catch (const std::exception& exception) {
      report_error({ErrorCode::internal, exception.what()});
    }
  });
  return command;
}

}  // namespace

void add_checkpoint(CLI::App& app) {
  static CheckpointOptions options;
  CLI::App* group =
      app.add_subcommand("checkpoint", "Look at checkpoints, check them, make other forms of them");
  group->require_subcommand(1);
  group->footer(
      "Examples:\n"
      "  tessera checkpoint inspect runs/demo\n"
      "  tessera checkpoint verify runs/demo/checkpoints/step-20\n"
      "  tessera checkpoint export runs/demo --to model-bf16 --dtype bf16\n"
      "  tessera checkpoint export runs/demo --to model-int8 --quantize int8");
  add_command(*group, "inspect", "Tensors, sizes, step and layout of a checkpoint", options, inspect);
  add_command(*group, "verify", "Check every hash; exit status 0 only for an intact checkpoint", options,
              verify);
  CLI::App* reshard =
      add_command(*group, "reshard", "Write a checkpoint again in files of another size (any layout reads any)",
                  options, [](const CheckpointOptions& o) { return convert(o, true); });
  CLI::App* exported = add_command(*group, "export", "Write the Hugging Face part alone", options,
                                   [](const CheckpointOptions& o) { return convert(o, false); });
  for (CLI::App* command : {reshard, exported}) {
    command->add_option("--to", options.to, "Directory to make")->required();
    command->add_option("--max-file-gib", options.max_file_gib, "Largest safetensors file")
        ->capture_default_str();
  }
  exported->add_option("--dtype", options.dtype, "float32 or bf16")->capture_default_str();
  exported->add_option("--quantize", options.quantize,
                       "int8, int4 or int4-offset: matrices in few bits, ready to map for serve");
}

}  // namespace tessera::cli
