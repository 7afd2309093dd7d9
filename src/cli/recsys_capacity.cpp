// tessera recsys capacity
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/recsys_parent.h"
#include "cli/result_output.h"
#include "core/progress.h"
#include "recsys/capacity.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string parameters = "100T", touched = "2M", row_type = "int8", memory, json;
  recsys::CapacityOptions options;
};

void print_report(std::FILE* out, const recsys::CapacityReport& report) {
  auto bytes = [](double value) { return human_count(value, "B"); };
  fmt::print(out, "addressed   {} parameters: {} ids x {}\n", human_count(report.parameters),
             human_count(static_cast<double>(report.ids)), report.dim);
  fmt::print(out, "virtual     {}, were all ids resident\n", bytes(report.virtual_bytes));
  fmt::print(out, "touched     {} rows\n", report.touched_rows);
  fmt::print(out, "resident    {} rows in {}, on disk {}\n", report.resident_rows,
             bytes(static_cast<double>(report.resident_bytes)), bytes(static_cast<double>(report.disk_bytes)));
  for (size_t i = 0; i < report.sizes.size(); ++i)
    fmt::print(out, "{:>9}   {} samples/s\n", human_count(report.sizes[i]),
               human_count(report.samples_per_s[i]));
  fmt::print(out, "flat within {:.1f} %\n", 100 * report.flatness);
  fmt::print(out, "read back   {} rows, {} errors\n", report.touched_rows, report.readback_errors);
}

Status run(Arguments& arguments) {
  recsys::CapacityOptions& options = arguments.options;
  TESSERA_ASSIGN_OR_RETURN(options.parameters, recsys::parse_count(arguments.parameters));
  TESSERA_ASSIGN_OR_RETURN(double touched, recsys::parse_count(arguments.touched));
  TESSERA_ASSIGN_OR_RETURN(options.row_type, recsys::parse_row_type(arguments.row_type));
  options.touched_rows = static_cast<int64_t>(touched);
  if (!arguments.memory.empty()) {
    TESSERA_ASSIGN_OR_RETURN(double memory, recsys::parse_count(arguments.memory));
    options.memory_bytes = static_cast<int64_t>(memory);
  }
  options.measured_rows = std::min(options.measured_rows, options.touched_rows);
  Progress progress({.label = "rows", .unit = "rows", .total = 0});
  TESSERA_ASSIGN_OR_RETURN(
      auto report, recsys::measure_capacity(options, [&](int64_t done, int64_t) { progress.update(done); }));
  progress.finish();
  print_report(text_output(arguments.json), report);
  TESSERA_RETURN_IF_ERROR(write_json(arguments.json, {{"parameters", report.parameters},
                                                      {"ids", report.ids},
                                                      {"dim", report.dim},
                                                      {"virtual_bytes", report.virtual_bytes},
                                                      {"touched_rows", report.touched_rows},
                                                      {"resident_rows", report.resident_rows},
                                                      {"resident_bytes", report.resident_bytes},
                                                      {"disk_bytes", report.disk_bytes},
                                                      {"sizes", report.sizes},
                                                      {"samples_per_s", report.samples_per_s},
                                                      {"flatness", report.flatness},
                                                      {"readback_errors", report.readback_errors}}));
  if (report.readback_errors == 0) return {};
  return make_error(ErrorCode::data_loss, "{} of {} rows read back other bytes than were written",
                    report.readback_errors, report.touched_rows);
}

}  // namespace

void add_recsys_capacity(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = recsys_parent(app).add_subcommand(
      "capacity", "Show how many parameters a store on this machine can address");
  command->add_option("--parameters", arguments->parameters, "Parameters addressed: ids x dim")
      ->capture_default_str();
  command->add_option("--dim", arguments->options.dim, "Values per row")->capture_default_str();
  command->add_option("--row-type", arguments->row_type, "float32, bf16, fp16 or int8")->capture_default_str();
  command->add_option("--touched", arguments->touched, "Rows to touch and to read back")->capture_default_str();
  command->add_option("--slots", arguments->options.slots, "Rows per sample")->capture_default_str();
  command->add_option("--memory", arguments->memory,
                      "Bytes of memory for rows, as 2G; the others go to --disk");
  command->add_option("--disk", arguments->options.disk.folder, "Folder on disk for the rows beyond --memory");
  command->add_flag("--direct", arguments->options.disk.direct, "Read and write the disk past the page cache");
  command->add_option("--json", arguments->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Rows come into being at first touch, so an address space costs nothing: virtual, touched and resident\n"
      "are told apart.\n"
      "Examples:\n"
      "  tessera recsys capacity --parameters 100T\n"
      "  tessera recsys capacity --parameters 100T --touched 100M --json capacity.json     about 15 GB\n"
      "  tessera recsys capacity --parameters 100T --touched 20M --memory 300M --disk /mnt/nvme");
  command->callback([arguments] {
    if (Status status = run(*arguments); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
