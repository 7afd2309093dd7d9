#include "train/run_config.h"

#include "data/packed_dataset.h"
#include "data/synthetic.h"

namespace tessera::train {
namespace {

Result<Numerics> parse_numerics(std::string_view text) {
  if (text == "exact") return Numerics::exact;
  if (text == "fast") return Numerics::fast;
  return invalid("work.numerics: got '{}', expected exact or fast", text);
}

const char* numerics_text(Numerics numerics) {
  return to_string(numerics);
}
std::string layout_text(const Layout& layout) {
  return to_string(layout);
}

Result<std::string> parse_decay(std::string_view text) {
  for (const char* known : {"cosine", "linear", "wsd", "constant"})
    if (text == known) return std::string(text);
  return invalid("optimizer.schedule: got '{}', expected cosine, linear, wsd or constant", text);
}

void bind_optimizer(Config& config, OptimizerConfig& optimizer) {
  config.bind("optimizer.learning_rate", &optimizer.learning_rate, "peak learning rate");
  config.bind("optimizer.min_learning_rate", &optimizer.min_learning_rate,
              "learning rate at the end of the decay");
  config.bind("optimizer.warmup_steps", &optimizer.warmup_steps, "steps of linear warm-up");
  config.bind("optimizer.schedule", &optimizer.schedule, "cosine, linear, wsd or constant", parse_decay,
              [](const std::string& text) { return text; });
  config.bind("optimizer.decay_steps", &optimizer.decay_steps,
              "steps of the decay; 0: to the last step (wsd: its last fifth)");
  config.bind("optimizer.beta1", &optimizer.beta1, "AdamW's average of gradients");
  config.bind("optimizer.beta2", &optimizer.beta2, "AdamW's average of squares");
  config.bind("optimizer.epsilon", &optimizer.epsilon, "AdamW's epsilon");
  config.bind("optimizer.weight_decay", &optimizer.weight_decay, "decay of matrices; norms are not decayed");
  config.bind("optimizer.clip_norm", &optimizer.clip_norm, "largest norm of the gradient; 0: no clipping");
}

Status check_positive(const char* key, int64_t value) {
  if (value > 0) return {};
  return invalid("{}={}: expected a positive integer", key, value);
}

Status check(const RunConfig& run) {
  TESSERA_RETURN_IF_ERROR(check_positive("work.seq", run.work.seq));
  TESSERA_RETURN_IF_ERROR(check_positive("work.micro_batch", run.work.micro_batch));
  TESSERA_RETURN_IF_ERROR(check_positive("work.global_batch", run.work.global_batch));
  TESSERA_RETURN_IF_ERROR(check_positive("work.tp_blocks", run.work.tp_blocks));
  TESSERA_RETURN_IF_ERROR(check_positive("work.seq_chunks", run.work.seq_chunks));
  TESSERA_RETURN_IF_ERROR(check_positive("train.steps", run.steps));
  if (run.work.seq > run.model.max_positions)
    return invalid("work.seq={} is longer than the model's max_position_embeddings={}", run.work.seq,
                   run.model.max_positions);
  return validate(run.model, run.work, run.layout);
}

Result<ModelSpec> resolve_model(const nlohmann::json& fields) {
  if (fields.empty())
    return invalid("[model] is missing: give fields of a Hugging Face config.json, or path = \"DIR\"");
  if (!fields.contains("path")) return parse_model_spec(fields);
  if (!fields["path"].is_string()) return invalid("model.path: expected a string");
  return load_model_spec(fields["path"].get<std::string>());
}

}  // namespace

void bind(Config& config, RunConfig& run) {
  config.bind_table("model", &run.model_json, "fields of a Hugging Face config.json, or path = \"DIR\"");
  config.bind("work.seq", &run.work.seq, "tokens of a sequence");
  config.bind("work.micro_batch", &run.work.micro_batch, "sequences of a micro-batch");
  config.bind("work.global_batch", &run.work.global_batch, "sequences of a step");
  config.bind("work.precision", &run.precision,
              "float32, bf16, or auto: bf16 where the processor is fast at it");
  config.bind("work.numerics", &run.work.numerics, "exact: equal bits for every layout; fast", parse_numerics,
              numerics_text);
  config.bind("work.tp_blocks", &run.work.tp_blocks, "parts of every sum that tp may split");
  config.bind("work.seq_chunks", &run.work.seq_chunks, "parts of every sum over the tokens of a micro-batch");
  config.bind("layout", &run.layout, "degrees, order, schedule, recomputation: fsdp=2,tp=2", parse_layout,
              layout_text);
  bind_optimizer(config, run.optimizer);
  config.bind("data.source", &run.data.source, "files or synthetic");
  config.bind("data.train", &run.data.train, "prefix of the training tokens' .bin and .idx");
  config.bind("data.valid", &run.data.valid, "prefix of the held-out tokens");
  config.bind("data.tokenizer", &run.data.tokenizer, "tokenizer.json, copied into checkpoints");
  config.bind("data.documents_mean_tokens", &run.data.documents_mean_tokens,
              "synthetic: mean length of a document");
  config.bind("train.steps", &run.steps, "optimizer steps");
  config.bind("train.seed", &run.seed, "of weights and of the order of data");
  config.bind("train.run_dir", &run.run_dir, "where metrics and checkpoints go; empty: nowhere");
  config.bind("train.snapshot_every", &run.snapshot_every,
              "steps between snapshots in a neighbour's memory; 0: none");
  config.bind("train.checkpoint_every", &run.checkpoint_every, "steps between checkpoints; 0: one at the end");
  config.bind("train.keep", &run.keep, "newest checkpoints kept; 0: all");
  config.bind("train.disk_checkpoints", &run.disk_checkpoints, "false: neither written nor read");
  config.bind("train.resume", &run.resume, "go on from the newest intact checkpoint of run_dir");
  config.bind("train.eval_every", &run.eval_every, "steps between evaluations; 0: none");
  config.bind("train.eval_samples", &run.eval_samples, "held-out sequences of an evaluation");
  config.bind("train.threads", &run.threads, "threads of each rank; 0: cores divided by ranks");
}

Result<Precision> resolve_precision(std::string_view text) {
  if (text == "float32") return Precision::float32;
  if (text == "bf16") return Precision::bf16;
  if (text != "auto") return invalid("work.precision: got '{}', expected float32, bf16 or auto", text);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return Precision::bf16;
#endif
  return Precision::float32;
}

Result<RunConfig> load_run_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                  std::string* explained) {
  RunConfig run;
  Config config;
  bind(config, run);
  if (!file.empty()) TESSERA_RETURN_IF_ERROR(config.load_file(file));
  // `precision=bf16` means work.precision: the last part of a bound name is enough where nothing else is meant.
  for (std::string text : overrides) {
    std::string key = text.substr(0, text.find('='));
    for (const char* name :
         {"precision", "numerics", "seq", "micro_batch", "global_batch", "tp_blocks", "seq_chunks"})
      if (key == name) text = "work." + text;
    for (const char* name : {"steps", "seed"})
      if (key == name) text = "train." + text;
    TESSERA_RETURN_IF_ERROR(config.set(text));
  }
  TESSERA_ASSIGN_OR_RETURN(run.model, resolve_model(run.model_json));
  TESSERA_ASSIGN_OR_RETURN(run.work.precision, resolve_precision(run.precision));
  TESSERA_RETURN_IF_ERROR(check(run));
  if (explained) *explained = config.explain();
  return run;
}

Result<Sources> open_sources(const RunConfig& run) {
  if (run.data.source == "synthetic") {
    data::SyntheticSource::Options options{
        .vocab = run.model.vocab,
        .seq = run.work.seq,
        .seed = run.seed,
        .documents_mean_tokens = std::max<int64_t>(1, run.data.documents_mean_tokens)};
    auto train = std::make_shared<data::SyntheticSource>(options);
    options.seed = ~run.seed;
    return Sources{train, std::make_shared<data::SyntheticSource>(options)};
  }
  if (run.data.source != "files")
    return invalid("data.source: got '{}', expected files or synthetic", run.data.source);
  if (run.data.train.empty())
    return invalid("data.train is empty: give the prefix of packed tokens (tessera data pack --out PREFIX)");
  data::PackedOptions options{.seq = run.work.seq, .seed = run.seed, .vocab_size = run.model.vocab};
  TESSERA_ASSIGN_OR_RETURN(auto train, data::PackedDataset::open(run.data.train, options));
  Sources sources{std::move(train), nullptr};
  if (run.data.valid.empty()) return sources;
  options.shuffle = false;
  TESSERA_ASSIGN_OR_RETURN(sources.valid, data::PackedDataset::open(run.data.valid, options));
  return sources;
}

}  // namespace tessera::train
