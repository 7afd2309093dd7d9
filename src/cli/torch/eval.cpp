// tessera eval: held-out loss of a model on packed tokens.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "checkpoint/weight_pieces.h"
#include "cli/commands.h"
#include "cli/number_checks.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/progress.h"
#include "data/packed_dataset.h"
#include "kernels/kernels.h"
#include "train/run_config.h"
#include "train/thread_job.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string model, data, precision = "auto", json;
  int64_t seq = 0, batch = 4, samples = 0, threads = 0;
};

struct Evaluation {
  double loss = 0, seconds = 0;
  int64_t sequences = 0, tokens = 0;
};

Result<Evaluation> evaluate(train::Trainer& trainer, const data::PackedDataset& set, int64_t sequences,
                            int64_t batch) {
  Evaluation result;
  Progress progress(Progress::Options{.label = "eval", .unit = "sequences", .total = sequences});
  Clock::time_point start = Clock::now();
  for (int64_t first = 0; first + batch <= sequences; first += batch) {
    TESSERA_ASSIGN_OR_RETURN(double loss, trainer.evaluate(set, first, batch));
    int64_t tokens = set.valid_tokens(first, batch);
    result.loss += loss * static_cast<double>(tokens);
    result.tokens += tokens;
    result.sequences += batch;
    progress.update(result.sequences);
  }
  progress.finish();
  result.loss /= static_cast<double>(std::max<int64_t>(1, result.tokens));
  result.seconds = seconds_since(start);
  return result;
}

Status write(const Arguments& arguments, const Evaluation& result, int64_t seq) {
  nlohmann::json out = {{"model", arguments.model},      {"data", arguments.data},
                        {"loss", result.loss},           {"perplexity", std::exp(result.loss)},
                        {"sequences", result.sequences}, {"seq", seq},
                        {"tokens", result.tokens},       {"seconds", result.seconds}};
  std::string text = out.dump(2) + "\n";
  if (arguments.json == "-") return std::fputs(text.c_str(), stdout), Status();
  return write_file_atomically(arguments.json, text);
}

Status run_eval(const Arguments& arguments) {
  TESSERA_ASSIGN_OR_RETURN(ModelSpec model, load_model_spec(arguments.model));
  int64_t seq = arguments.seq > 0 ? arguments.seq : std::min<int64_t>(model.max_positions, 2048);
  if (seq > model.max_positions)
    return make_error(ErrorCode::invalid_argument, "--seq {}: the model has {} positions", seq,
                      model.max_positions);
  data::PackedOptions packing{.seq = seq, .shuffle = false, .vocab_size = model.vocab};
  TESSERA_ASSIGN_OR_RETURN(auto set, data::PackedDataset::open(arguments.data, packing));
  int64_t available = set->samples_per_epoch();
  int64_t sequences = arguments.samples > 0 ? std::min(arguments.samples, available) : available;
  int64_t batch = std::min(arguments.batch, sequences);
  TESSERA_ASSIGN_OR_RETURN(Precision precision, train::resolve_precision(arguments.precision));

  kernels::set_kernel_threads(
      arguments.threads > 0 ? arguments.threads : std::max<int64_t>(1, std::thread::hardware_concurrency()));
  Work work{.seq = seq,
            .micro_batch = batch,
            .global_batch = batch,
            .precision = precision,
            .tp_blocks = 1,
            .seq_chunks = 1};
  TESSERA_ASSIGN_OR_RETURN(auto job, train::ThreadJob::create({.model = model, .work = work}));
  TESSERA_ASSIGN_OR_RETURN(auto weights, checkpoint::WeightReader::open(arguments.model));
  checkpoint::WeightPieces pieces(std::move(weights));
  TESSERA_RETURN_IF_ERROR(job->rank(0).restore(pieces));
  TESSERA_ASSIGN_OR_RETURN(Evaluation result, evaluate(job->rank(0), *set, sequences, batch));

  std::FILE* out = arguments.json == "-" ? stderr : stdout;
  std::fprintf(out,
               "loss %.4f nats a token, perplexity %.2f, over %ld tokens in %ld of %ld sequences of %ld (%.0f "
               "tokens/s)\n",
               result.loss, std::exp(result.loss), static_cast<long>(result.tokens),
               static_cast<long>(result.sequences), static_cast<long>(available), static_cast<long>(seq),
               static_cast<double>(result.tokens) / std::max(result.seconds, 1e-9));
  return arguments.json.empty() ? Status() : write(arguments, result, seq);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("eval", "Held-out loss of a model on packed tokens");
  command->add_option("--model", arguments->model, "Hugging Face directory, or a checkpoint of ours")
      ->required();
  command->add_option("--data", arguments->data, "Prefix of packed tokens (.bin and .idx are added)")
      ->required();
  command->add_option("--seq", arguments->seq, "Tokens of a sequence; 0: what the model can, at most 2,048");
  command->add_option("--batch", arguments->batch, "Sequences at once")
      ->check(positive_number())
      ->capture_default_str();
  command->add_option("--samples", arguments->samples, "Sequences; 0: all");
  command->add_option("--precision", arguments->precision, "float32, bf16 or auto")->capture_default_str();
  command->add_option("--threads", arguments->threads, "Threads; 0: all cores");
  command->add_option("--json", arguments->json, "Write the result here; - for standard output");
  command->footer(
      "Example: tessera eval --model runs/quickstart/checkpoints/step-120 --data runs/quickstart/data/valid");
  command->callback([arguments] {
    Status status = run_eval(*arguments);
    if (!status) report_error(status.error());
  });
}

}  // namespace tessera::cli
