// torchtitan 0.3.0 takes a module, one of its configurations, and overrides on the command line.
#include "plan/emit/flags.h"
#include "plan/emit/targets.h"

namespace tessera::plan {
namespace {

int64_t rounded_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Result<std::string> schedule_name(const TrainingLayout& l) {
  switch (l.schedule) {
    case PipelineKind::gpipe:
      return std::string("GPipe");
    case PipelineKind::one_f_one_b:
      return std::string(l.virtual_stages > 1 ? "Interleaved1F1B" : "1F1B");
    case PipelineKind::zb_v:
      return std::string("ZBVZeroBubble");
    default:
      return invalid("torchtitan has no schedule {}; it runs gpipe, 1f1b and zb-v", to_string(l.schedule));
  }
}

Status titan_pipeline(const TrainingSetup& setup, Flags& out) {
  const TrainingLayout& l = setup.layout;
  if (l.pp == 1) {
    out.set("--training.local_batch_size", l.micro_batch);
    return {};
  }
  TESSERA_ASSIGN_OR_RETURN(std::string schedule, schedule_name(l));
  int64_t pieces = l.pp * setup.chunks(), layers = setup.model.layers(), each = rounded_up(layers, pieces);
  // It takes a number of layers for every stage and counts the stages itself.
  if (rounded_up(layers, each) != pieces)
    return invalid(
        "torchtitan cannot cut {} layers into {} stages: with {} a stage it makes {}; choose pp times "
        "virtual stages that divide the layers",
        layers, pieces, each, rounded_up(layers, each));
  out.set("--parallelism.pipeline_parallel_degree", l.pp);
  out.set("--parallelism.pipeline_parallel_schedule", schedule);
  out.set("--parallelism.pipeline_parallel_layers_per_stage", each);
  out.set("--parallelism.pipeline_parallel_first_stage_less_layers", 0);
  out.set("--parallelism.pipeline_parallel_last_stage_less_layers", 0);
  out.set("--parallelism.pipeline_parallel_microbatch_size", l.micro_batch);
  out.set("--training.local_batch_size", setup.work.global_batch / l.replicas());
  return {};
}

void data_parallel(const TrainingSetup& setup, Flags& out) {
  const TrainingLayout& l = setup.layout;
  bool replicated = l.sharding == Sharding::none;
  bool whole = l.sharding == Sharding::optimizer;
  out.set("--parallelism.data_parallel_replicate_degree", replicated ? l.replicas() : whole ? 1 : l.dp);
  out.set("--parallelism.data_parallel_shard_degree", replicated ? 1 : whole ? l.replicas() : l.fsdp);
  bool reshard = l.sharding == Sharding::parameters && !l.keep_gathered;
  if (!replicated) out.set("--parallelism.fsdp_reshard_after_forward", reshard ? "always" : "never");
  if (whole && l.replicas() > 1)
    out.note(
        "planned: optimizer states sharded, weights whole on each device. torchtitan shards weights and "
        "gradients too (FSDP): less memory than planned, other communication");
}

}  // namespace

Result<std::string> emit_torchtitan(const GpuPlanRequest&, const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  if (l.ep > 1 && l.expert_tp() != 1)
    return invalid("torchtitan does not split an expert over tp: plan with --layout ...,etp=1");
  if (l.order != TrainingLayout{}.order)
    return invalid("torchtitan orders ranks tp-cp-fsdp-dp-pp; plan with that order");
  Flags out(torchrun(l.devices()) + " -m torchtitan.train --module MODULE --config CONFIG");
  out.note(
      fmt::format("{} on {} devices; MODULE and CONFIG name the model in torchtitan, as llama3 and llama3_405b",
                  setup.model.name, l.devices()));
  out.set("--training.seq_len", setup.work.seq);
  out.set("--training.global_batch_size", setup.work.global_batch);
  TESSERA_RETURN_IF_ERROR(titan_pipeline(setup, out));
  // It refuses them beside pipelines and beside the usual exchange of experts' tokens.
  if (l.pp > 1 || l.ep > 1) out.flag("--training.disable_cuda_graphs");
  data_parallel(setup, out);
  out.set("--parallelism.tensor_parallel_degree", l.tp);
  if (l.tp > 1 && !l.sequence_parallel) out.flag("--parallelism.no-enable_sequence_parallel");
  if (l.cp > 1) out.set("--parallelism.context_parallel_degree", l.cp);
  if (l.ep > 1) out.set("--parallelism.expert_parallel_degree", l.ep);
  if (setup.work.precision == TrainingPrecision::float32)
    out.set("--training.mixed_precision_param", "float32");
  if (is_8_bit_or_less(setup.work.precision) || setup.work.precision == TrainingPrecision::fp16)
    out.note(
        fmt::format("planned precision = {}: in torchtitan a matter of CONFIG (llama3_8b_mxfp8, "
                    "deepseek_v3_671b_float8, ...), not of a flag; fp16 is not there",
                    to_string(setup.work.precision)));
  const Recomputation& r = l.recompute;
  bool full = r.full == Recomputation::Full::all && r.uniform_chunk == 1;
  if (to_string(r) != "none" && !full && !r.cheap_ops)
    out.note(
        fmt::format("planned recompute = {}: torchtitan has none, full and selective by operation; full is set",
                    to_string(r)));
  // A choice between policies comes last.
  out.flag(to_string(r) == "none" ? "activation-checkpoint:none"
           : r.cheap_ops          ? "activation-checkpoint:selective"
                                  : "activation-checkpoint:full");
  return out.text();
}

}  // namespace tessera::plan
