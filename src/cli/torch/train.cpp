// tessera train: one worker of a training job; alone it is the whole job.
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>
#include <thread>

#include "cli/commands.h"
#include "cli/torch/train_command.h"
#include "core/log.h"
#include "core/progress.h"
#include "kernels/kernels.h"
#include "model/live_bytes.h"
#include "resilience/worker.h"
#include "train/run_record.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> overrides;
  bool explain = false;
};

void add_options(CLI::App& command, Arguments& arguments) {
  command.add_option("--config", arguments.config, "TOML file of the run")->required();
  command.add_flag("--explain", arguments.explain, "Print every value and where it came from, then stop");
  command.add_option("overrides", arguments.overrides, "key=value of the configuration");
}

std::atomic<bool> stop_requested{false};
void on_signal(int) {
  stop_requested = true;
}

// Threads of this rank: what is configured, else a fair share of the cores.
int64_t threads_of(const train::RunConfig& run) {
  if (run.threads > 0) return run.threads;
  return std::max<int64_t>(1,
                           static_cast<int64_t>(std::thread::hardware_concurrency()) / run.layout.processes());
}

resilience::Job make_job(const train::RunConfig& run, const train::Sources& sources,
                         const std::string& explained) {
  resilience::Job job{.model = run.model,
                      .work = run.work,
                      .layout = run.layout,
                      .optimizer = run.optimizer,
                      .steps = run.steps,
                      .seed = run.seed,
                      .train = sources.train,
                      .valid = sources.valid,
                      .run_dir = run.run_dir};
  job.snapshot_every = run.snapshot_every;
  job.checkpoint_every = run.checkpoint_every;
  job.keep = run.keep;
  job.disk_checkpoints = run.disk_checkpoints && !run.run_dir.empty();
  job.resume = run.resume;
  job.eval_every = sources.valid ? run.eval_every : 0;
  job.eval_samples = run.eval_samples;
  if (!run.data.tokenizer.empty()) job.checkpoint_copies.push_back(run.data.tokenizer);
  job.optimizer_text = explained;
  job.make_trainer = train::Trainer::create;
  job.stop = &stop_requested;
  return job;
}

// What rank 0 shows and writes.
class Reporter {
 public:
  Reporter(const train::RunConfig& run, std::string command) : run_(run), command_(std::move(command)) {}

  void attach(resilience::Job& job) {
    job.on_generation = [this](const resilience::Generation& generation, const train::Trainer&) {
      begin(generation);
    };
    job.on_step = [this](const train::StepReport& report, const train::Trainer& trainer) {
      step(report, trainer);
    };
    job.on_evaluation = [this](int64_t step, double loss) { evaluation(step, loss); };
  }

  void finish(const std::string& error) {
    if (progress_ && error.empty()) progress_->finish(note_);
    if (record_) keep(record_->finish(error));
    if (!progress_ || steps_ == 0) return;
    double mean = seconds_ / static_cast<double>(steps_);
    std::printf("trained %ld steps here: loss %.4f, %.0f tokens/s, %.3f s a step", static_cast<long>(steps_),
                loss_, static_cast<double>(tokens_) / seconds_, mean);
    if (record_ && record_->predicted_step_s() > 0)
      std::printf(" (predicted %.3f s, %+.0f %%)", record_->predicted_step_s(),
                  100 * (mean / record_->predicted_step_s() - 1));
    if (valid_loss_) std::printf(", held-out loss %.4f", *valid_loss_);
    std::printf("\n");
  }

 private:
  void begin(const resilience::Generation& generation) {
    model::reset_peak_live_bytes();  // what recovery held for a moment is not what the layout needs
    if (generation.rank != 0) return;
    if (!run_.run_dir.empty() && !record_) {
      auto opened = train::RunRecord::open(run_, command_);
      if (opened)
        record_ = std::move(*opened);
      else
        report_error(opened.error());
    }
    if (record_) record_->set_generation(generation.number);
    std::printf("generation %ld: layout %s, from step %ld (%s)\n", static_cast<long>(generation.number),
                to_string(generation.layout).c_str(), static_cast<long>(generation.first_step),
                generation.source.c_str());
    std::fflush(stdout);
    if (!progress_)
      progress_.emplace(
          Progress::Options{.label = "train", .unit = "steps", .total = run_.steps, .line_interval_s = 2});
  }

  void step(const train::StepReport& report, const train::Trainer& trainer) {
    loss_ = report.loss;
    if (skipped_first_) {  // the first step of a process warms caches and maps memory
      ++steps_;
      seconds_ += report.seconds;
      tokens_ += report.tokens;
    }
    skipped_first_ = true;
    note_ =
        fmt::format("loss {:.4f}  {} tokens/s  {:.3f} s/step", report.loss,
                    static_cast<int64_t>(static_cast<double>(report.tokens) / report.seconds), report.seconds);
    if (record_ && record_->predicted_step_s() > 0)
      note_ += fmt::format(" (predicted {:.3f})", record_->predicted_step_s());
    if (valid_loss_) note_ += fmt::format("  held-out {:.4f}", *valid_loss_);
    if (progress_) progress_->update(report.step + 1, note_);
    if (record_) keep(record_->step(report, trainer.timelines()));
  }

  void evaluation(int64_t step, double loss) {
    valid_loss_ = loss;
    if (record_) keep(record_->evaluation(step, loss));
  }

  // A record that cannot be written must not end the training it records.
  void keep(const Status& status) {
    if (status.ok() || warned_) return;
    warned_ = true;
    log(LogLevel::warn, "the run's record is incomplete: {}", status.error().message);
  }

  const train::RunConfig& run_;
  std::string command_, note_;
  std::unique_ptr<train::RunRecord> record_;
  std::optional<Progress> progress_;
  std::optional<double> valid_loss_;
  int64_t steps_ = 0, tokens_ = 0;
  double seconds_ = 0, loss_ = 0;
  bool skipped_first_ = false, warned_ = false;
};

Status run_train(const Arguments& arguments) {
  std::string explained;
  TESSERA_ASSIGN_OR_RETURN(train::RunConfig run,
                           train::load_run_config(arguments.config, arguments.overrides, &explained));
  if (arguments.explain) return std::fputs(explained.c_str(), stdout), Status();
  TESSERA_ASSIGN_OR_RETURN(resilience::WorkerContext context, resilience::worker_context());
  if (context.kind == resilience::WorkerContext::alone && run.layout.processes() > 1)
    return invalid(
        "layout {} needs {} processes and this is one: run `tessera launch -n {} -- train --config {} ...`",
        to_string(run.layout), run.layout.processes(), run.layout.processes(), arguments.config);
  model::install_counting_allocator();
  kernels::set_kernel_threads(threads_of(run));
  TESSERA_ASSIGN_OR_RETURN(train::Sources sources, train::open_sources(run));
  resilience::Job job = make_job(run, sources, explained);
  Reporter reporter(
      run, fmt::format("tessera train --config {} {}", arguments.config, fmt::join(arguments.overrides, " ")));
  reporter.attach(job);
  ::signal(SIGTERM, on_signal);
  ::signal(SIGINT, on_signal);
  auto result = resilience::run_job(job, context);
  reporter.finish(result.ok() ? "" : result.error().message);
  if (!result) return result.error();
  if (result->rank == 0)
    std::printf("weights %s after %ld steps\n", result->weights_hash.c_str(), static_cast<long>(result->steps));
  return {};
}

}  // namespace

Status check_train_command(const std::vector<std::string>& words, int64_t workers) {
  Arguments arguments;
  CLI::App command;
  add_options(command, arguments);
  try {
    command.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them last first
  } catch (const CLI::ParseError&) {
    return {};  // the worker says it better: help, or what it did not expect
  }
  if (arguments.explain) return {};
  TESSERA_ASSIGN_OR_RETURN(train::RunConfig run, train::load_run_config(arguments.config, arguments.overrides));
  if (run.layout.processes() != workers)
    return invalid("layout {} needs {} processes, got -n {}: run with -n {}, or give another layout=",
                   to_string(run.layout), run.layout.processes(), workers, run.layout.processes());
  TESSERA_ASSIGN_OR_RETURN(auto sources, train::open_sources(run));
  return {};
}

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("train", "Train a model; under `tessera launch`, one worker of the job");
  add_options(*command, *arguments);
  command->footer(
      "Examples:\n"
      "  tessera train --config examples/dense-small.toml train.run_dir=runs/small\n"
      "  tessera launch -n 4 -- train --config examples/moe.toml layout=fsdp=4,ep=4\n"
      "  tessera train --config examples/moe.toml --explain");
  command->callback([arguments] {
    if (Status status = run_train(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
