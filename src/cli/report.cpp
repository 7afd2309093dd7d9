#include "report/report.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/commands.h"
#include "core/file.h"

namespace tessera::cli {
namespace {

struct Options {
  std::string run_dir, out;
};

Status write_report(const Options& options) {
  std::filesystem::path out = options.out;
  if (options.out.empty()) out = std::filesystem::path(options.run_dir) / "report.html";
  TESSERA_ASSIGN_OR_RETURN(std::string page, report::render_report(options.run_dir));
  TESSERA_RETURN_IF_ERROR(write_file_atomically(out, page));
  std::printf("%s\n", out.string().c_str());
  return {};
}

}  // namespace

void add_report(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("report", "Write one HTML page about a training run; it opens offline");
  command->add_option("RUN_DIR", options->run_dir, "Folder that the run left (train.run_dir)")->required();
  command->add_option("--out", options->out, "Where to write the page; default: RUN_DIR/report.html");
  command->footer("Example:\n  tessera report runs/quickstart");
  command->callback([options] {
    Status status = write_report(*options);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
