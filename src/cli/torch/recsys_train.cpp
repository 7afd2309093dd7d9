// tessera recsys train: a click model with its embedding store.
#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/recsys_parent.h"
#include "cli/result_output.h"
#include "cli/torch/recsys_roles.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "recsys_train/export.h"
#include "recsys_train/record.h"
#include "recsys_train/run.h"
#include "report/report.h"

namespace tessera::cli {
namespace {

using namespace recsys_train;
using nlohmann::json;

struct Arguments {
  std::string config, json, role, report;
  std::vector<std::string> overrides;
  ExportOptions exports;
  int64_t checkpoint_every = 0;
  bool explain = false, hash = false, resume = false;

  // Options that stand for settings; what is set by name wins.
  std::vector<std::string> settings() const {
    std::vector<std::string> all;
    if (checkpoint_every > 0) all.push_back(fmt::format("train.checkpoint_every={}", checkpoint_every));
    if (resume) all.push_back("train.resume=latest");
    all.insert(all.end(), overrides.begin(), overrides.end());
    return all;
  }
};

json number(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json to_json(const GroupResult& group) {
  int64_t lookups = 0, sum = 0;
  for (size_t k = 0; k < group.staleness.size(); ++k) {
    lookups += group.staleness[k];
    sum += static_cast<int64_t>(k) * group.staleness[k];
  }
  return {
      {"name", group.name},
      {"rows", group.rows.rows},
      {"bytes", group.rows.bytes},
      {"absent_gradients", group.rows.absent_gradients},
      {"evicted", group.rows.evicted},
      {"refused", group.rows.refused},
      {"disk_rows", group.rows.disk_rows},
      {"disk_bytes", group.rows.disk_bytes},
      {"returned_from_disk", group.rows.returned},
      {"staleness_bound", group.staleness_bound},
      {"staleness_mean", lookups > 0 ? json(static_cast<double>(sum) / static_cast<double>(lookups)) : json()},
      {"staleness_max", static_cast<int64_t>(group.staleness.size()) - 1},
      {"staleness_histogram", group.staleness}};
}

json to_json(const WireCount& wire) {
  if (wire.bytes == 0) return {};
  return {{"bytes", wire.bytes},
          {"raw_bytes", wire.raw_bytes},
          {"ratio", static_cast<double>(wire.raw_bytes) / static_cast<double>(wire.bytes)}};
}

json to_json(const CacheCount& cache) {
  if (cache.gets == 0) return {};
  return {{"gets", cache.gets},
          {"hits", cache.hits},
          {"hit_rate", static_cast<double>(cache.hits) / static_cast<double>(cache.gets)}};
}

json to_json(const RunConfig& run, const RunResult& result) {
  json epochs = json::array(), groups = json::array();
  for (const Quality& quality : result.tests)
    epochs.push_back({{"test_auc", number(quality.auc)}, {"test_log_loss", number(quality.log_loss)}});
  for (const GroupResult& group : result.groups) groups.push_back(to_json(group));
  Quality test = result.test();
  auto text_or_null = [](const std::string& text) { return text.empty() ? json() : json(text); };
  return {{"test_auc", number(test.auc)},
          {"test_log_loss", number(test.log_loss)},
          {"test_normalised_entropy", number(test.normalised_entropy)},
          {"test_calibration", number(test.calibration)},
          {"test_rows", test.rows},
          {"best_auc", result.best_auc > 0 ? json(result.best_auc) : json()},
          {"train_loss", number(result.mean_loss)},
          {"mode", to_string(run.trainer.mode)},
          {"steps", result.steps},
          {"samples", result.rows},
          {"seconds", result.train_s},
          {"samples_per_s", number(static_cast<double>(result.rows) / result.train_s)},
          {"wait_s", result.wait_s},
          {"dense_s", result.dense_s},
          {"reduce_s", result.reduce_s},
          {"weights_hash", text_or_null(result.weights_hash)},
          {"rows_hash", text_or_null(result.rows_hash)},
          {"epochs", epochs},
          {"wire", to_json(result.traffic.wire)},
          {"cache", to_json(result.traffic.cache)},
          {"groups", groups}};
}

std::string quality_text(const Quality& quality) {
  return fmt::format("test AUC {:.4f}, log loss {:.4f}, NE {:.4f}, calibration {:.3f}", quality.auc,
                     quality.log_loss, quality.normalised_entropy, quality.calibration);
}

// Progress on the terminal (mean loss of the last steps and the rate) and the record in the run directory.
class Reporter {
 public:
  Reporter(std::FILE* out, std::unique_ptr<RunRecord> record) : out_(out), record_(std::move(record)) {}
  RunCallbacks callbacks() {
    RunCallbacks callbacks;
    callbacks.on_start = [this](int64_t rows) {
      progress_.emplace(
          Progress::Options{.label = "train", .unit = "samples", .total = rows, .line_interval_s = 2});
    };
    callbacks.on_step = [this](const StepReport& step) {
      rows_ += step.rows;
      loss_ = loss_ == 0 ? step.loss : 0.98 * loss_ + 0.02 * step.loss;
      progress_->update(rows_, fmt::format("loss {:.4f}", loss_));
      if (record_) keep(record_->step(step));
    };
    callbacks.on_test = [this](int64_t epoch, int64_t step, const Quality& quality) {
      if (record_) keep(record_->test(step, quality));
      fmt::print(out_, "epoch {}: {}\n", epoch + 1, quality_text(quality));
      std::fflush(out_);
    };
    return callbacks;
  }
  void finish(const std::string& error, const json& result) {
    if (progress_ && error.empty()) progress_->finish();
    if (record_) keep(record_->finish(error, result));
  }

 private:
  // A record that cannot be written must not end the training it records.
  void keep(const Status& status) {
    if (status.ok() || warned_) return;
    warned_ = true;
    log(LogLevel::warn, "the run's record is incomplete: {}", status.error().message);
  }

  std::FILE* out_;
  std::unique_ptr<RunRecord> record_;
  bool warned_ = false;
  std::optional<Progress> progress_;
  int64_t rows_ = 0;
  double loss_ = 0;
};

void print_traffic(std::FILE* out, const Traffic& traffic) {
  auto share = [](int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
  if (traffic.wire.bytes > 0)
    fmt::print(out, "wire: {} instead of {}, {:.1f} times fewer\n",
               human_count(static_cast<double>(traffic.wire.bytes), "B"),
               human_count(static_cast<double>(traffic.wire.raw_bytes), "B"),
               share(traffic.wire.raw_bytes, traffic.wire.bytes));
  if (traffic.cache.gets > 0)
    fmt::print(out, "cache of the worker: {:.0f} % of {} rows\n",
               100 * share(traffic.cache.hits, traffic.cache.gets),
               human_count(static_cast<double>(traffic.cache.gets)));
}

void print_result(std::FILE* out, const RunResult& result) {
  fmt::print(out,
             "{} samples in {}: {} samples/s; the dense step took {:.0f} % of the time and waited {:.0f} %\n",
             result.rows, human_duration(result.train_s),
             human_count(static_cast<double>(result.rows) / result.train_s),
             100 * result.dense_s / result.train_s, 100 * result.wait_s / result.train_s);
  for (const GroupResult& group : result.groups) {
    // A trainer that came back when all steps were done looked nothing up.
    if (group.staleness.empty()) continue;
    json figures = to_json(group);
    fmt::print(out, "rows of {}: {} in {}; staleness mean {:.2f}, largest {}, bound {}\n", group.name,
               group.rows.rows, human_count(static_cast<double>(group.rows.bytes), "B"),
               figures["staleness_mean"].get<double>(), figures["staleness_max"].get<int64_t>(),
               group.staleness_bound);
  }
  for (const GroupResult& group : result.groups)
    if (group.rows.disk_rows > 0)
      fmt::print(out, "on disk: {} rows of {} in {}; {} came back\n", group.rows.disk_rows, group.name,
                 human_count(static_cast<double>(group.rows.disk_bytes), "B"), group.rows.returned);
  print_traffic(out, result.traffic);
  if (result.best_auc > 0) fmt::print(out, "best AUC there is for these rows: {:.4f}\n", result.best_auc);
}

// Null where nothing is exported.
Result<std::unique_ptr<Exporter>> open_exporter(const Arguments& arguments, const RunConfig& run,
                                                Setup& setup) {
  if (arguments.exports.folder.empty() || setup.rank > 0) return std::unique_ptr<Exporter>();
  TESSERA_ASSIGN_OR_RETURN(ExportedModel model, exported_model(run, setup));
  return Exporter::open(arguments.exports, model, *setup.worker, *setup.model);
}

// Of a report without a run directory.
class TemporaryFolder {
 public:
  TemporaryFolder() = default;
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  Result<std::string> make() {
    std::string path = (std::filesystem::temp_directory_path() / "tessera-report-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) return system_error("cannot make a folder", path, errno);
    path_ = path;
    return path;
  }

 private:
  std::filesystem::path path_;
};

Status write_report(const std::string& run_dir, const std::string& file, std::FILE* out) {
  TESSERA_ASSIGN_OR_RETURN(std::string page, report::render_report(run_dir));
  TESSERA_RETURN_IF_ERROR(write_file_atomically(file, page));
  fmt::print(out, "report: {}\n", file);
  return {};
}

// Trains what is set up, and reports. Only the first of several trainers keeps the record and the result.
Status train_and_report(const Arguments& arguments, const RunConfig& run, const std::string& explained,
                        Setup& setup, const std::function<void(int64_t)>& progress) {
  std::FILE* out = text_output(arguments.json);
  const bool first = setup.rank == 0;
  std::unique_ptr<RunRecord> record;
  TemporaryFolder temporary;
  std::string record_dir = run.run_dir;
  if (first && record_dir.empty() && !arguments.report.empty()) {
    TESSERA_ASSIGN_OR_RETURN(record_dir, temporary.make());
  }
  if (first && !record_dir.empty()) {
    std::string command = fmt::format("tessera recsys train --config {} {}", arguments.config,
                                      fmt::join(arguments.overrides, " "));
    TESSERA_ASSIGN_OR_RETURN(record, RunRecord::open(record_dir, command, explained));
    if (run.cache_rows > 0) record->traffic = [&setup] { return setup.worker->traffic(); };
  }
  Reporter reporter(out, std::move(record));
  RunCallbacks callbacks = first ? reporter.callbacks() : RunCallbacks();
  if (progress)
    callbacks.on_step = [&progress, report = callbacks.on_step](const StepReport& step) {
      progress(step.step + 1);
      if (report) report(step);
    };
  TESSERA_ASSIGN_OR_RETURN(auto exporter, open_exporter(arguments, run, setup));
  if (exporter)
    callbacks.on_step = [&exporter, report = callbacks.on_step](const StepReport& step) {
      if (report) report(step);
      exporter->after_step(step.step + 1);
    };
  auto result = train(run, setup, callbacks);
  if (result && first && arguments.hash)
    if (Status hashed = add_hashes(setup, *result); !hashed.ok()) result = hashed.error();
  reporter.finish(result.ok() ? "" : result.error().message, result ? to_json(run, *result) : json());
  if (!result) return result.error();
  if (!first) return {};
  if (!arguments.report.empty()) TESSERA_RETURN_IF_ERROR(write_report(record_dir, arguments.report, out));
  print_result(out, *result);
  if (exporter) {
    TESSERA_RETURN_IF_ERROR(exporter->finish(result->steps));
    fmt::print(out, "exported {} version{} to {}\n", exporter->versions(), exporter->versions() == 1 ? "" : "s",
               arguments.exports.folder.string());
  }
  return write_json(arguments.json, to_json(run, *result));
}

Status run_train(const Arguments& arguments) {
  std::string explained;
  TESSERA_ASSIGN_OR_RETURN(RunConfig run, load_run_config(arguments.config, arguments.settings(), &explained));
  if (arguments.explain) return std::fputs(explained.c_str(), stdout), Status();
  if (run.threads > 0) at::set_num_threads(static_cast<int>(run.threads));
  auto body = [&](Setup& setup, const std::function<void(int64_t)>& progress) {
    return train_and_report(arguments, run, explained, setup, progress);
  };
  if (!arguments.role.empty()) return run_recsys_role(run, arguments.role, body);
  TESSERA_RETURN_IF_ERROR(check_run_dir(run));
  TESSERA_ASSIGN_OR_RETURN(auto setup, set_up(run));
  return body(*setup, {});
}

void add_options(CLI::App& command, Arguments& arguments) {
  command.add_option("--config", arguments.config, "TOML file of the run")->required();
  command.add_flag("--explain", arguments.explain, "Print every value and where it came from, then stop");
  command.add_flag("--hash", arguments.hash,
                   "Add hashes of all weights and rows to the result, to compare runs");
  command.add_option("--checkpoint-every", arguments.checkpoint_every,
                     "Steps between checkpoints in train.run_dir");
  command.add_flag("--resume", arguments.resume, "Go on from the newest checkpoint in train.run_dir");
  command.add_option("--role", arguments.role,
                     "Be one process of a job of `tessera launch`: loader, worker:N, server:N or trainer:N");
  command.add_option("--json", arguments.json, "Write the result as JSON; - for standard output");
  command.add_option("--report", arguments.report, "Write one HTML page about the run; it opens offline");
  command.add_option("--export", arguments.exports.folder, "Folder for the model, as `recsys serve` reads it");
  command
      .add_option("--export-interval", arguments.exports.interval_s,
                  "Seconds between two versions while training; 0: one at the end")
      ->check(non_negative_number())
      ->capture_default_str();
  command.add_option("overrides", arguments.overrides, "key=value of the configuration");
}

}  // namespace

Result<RunConfig> recsys_run_of(const std::vector<std::string>& words) {
  Arguments arguments;
  CLI::App command;
  add_options(command, arguments);
  try {
    command.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them last first
  } catch (const CLI::ParseError& error) {
    return invalid("recsys train {}: {}", fmt::join(words, " "), error.what());
  }
  if (!arguments.role.empty()) return invalid("--role is given by launch; see launch --roles");
  return load_run_config(arguments.config, arguments.settings());
}

void add_recsys_train(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = recsys_parent(app).add_subcommand(
      "train", "Train a click model: embeddings asynchronous within a bound, dense layers synchronous");
  add_options(*command, *arguments);
  command->footer(
      "Examples:\n"
      "  tessera recsys train --config examples/recsys/adult.toml data.path=data/adult\n"
      "  tessera recsys train --config examples/recsys/adult.toml data.path=data/adult train.mode=sync --json "
      "-\n"
      "  tessera recsys train --config examples/recsys/synthetic.toml model.kind=dcnv2 train.staleness=50\n"
      "  tessera recsys train --config examples/recsys/synthetic.toml --export runs/clicks --export-interval "
      "0.5\n"
      "Rows and weights every 1000 steps, and on from the last of them, with other numbers of servers:\n"
      "  tessera recsys train --config examples/recsys/synthetic.toml train.run_dir=runs/a --checkpoint-every "
      "1000\n"
      "  tessera recsys train --config examples/recsys/synthetic.toml train.run_dir=runs/a --resume "
      "train.servers=3\n"
      "Loader, embedding worker, two servers and two trainers as processes, which may be killed:\n"
      "  tessera launch -n 2 -- recsys train --config examples/recsys/synthetic.toml train.servers=2");
  command->callback([arguments] {
    if (Status status = run_train(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
