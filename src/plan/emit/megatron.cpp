// Arguments of Megatron-LM's pretrain scripts (megatron/training/arguments.py, core 0.16.1).
#include "plan/emit/flags.h"
#include "plan/emit/targets.h"

namespace tessera::plan {
namespace {

constexpr std::array kInner = {Axis::tp, Axis::cp, Axis::fsdp, Axis::dp, Axis::pp};
constexpr std::array kPipelineInside = {Axis::tp, Axis::cp, Axis::pp, Axis::fsdp, Axis::dp};

// "Et|tt|...|tL": what each piece of the model holds, for stages that are not even.
std::string piece_text(const TrainingSetup& setup) {
  std::string text = "E";
  int64_t pieces = setup.layout.pp * setup.chunks();
  for (int64_t piece = 0; piece < pieces; ++piece) {
    LayerRange range = setup.layers_of(piece % setup.layout.pp, piece / setup.layout.pp);
    text += (piece > 0 ? "|" : "") + std::string(static_cast<size_t>(range.last - range.first), 't');
  }
  return text + "L";
}

void megatron_pipeline(const TrainingSetup& setup, Flags& out) {
  const TrainingLayout& l = setup.layout;
  out.set("--pipeline-model-parallel-size", l.pp);
  if (l.pp == 1) return;
  if (setup.model.layers() % (l.pp * l.virtual_stages) != 0)
    out.set("--pipeline-model-parallel-layout", fmt::format("'{}'", piece_text(setup)));
  else if (l.virtual_stages > 1)
    out.set("--num-virtual-stages-per-pipeline-rank", l.virtual_stages);
}

void recomputation(const TrainingSetup& setup, Flags& out) {
  const Recomputation& r = setup.layout.recompute;
  if (r.full == Recomputation::Full::every)
    return out.note(
        fmt::format("planned recompute = {}: Megatron-LM has no such choice; none is set", to_string(r)));
  if (r.full != Recomputation::Full::none) {
    bool all = r.full == Recomputation::Full::all;
    out.set("--recompute-granularity", "full");
    out.set("--recompute-method", all ? "uniform" : "block");
    out.set("--recompute-num-layers", all ? r.uniform_chunk : r.layers);
    return;
  }
  if (r.cheap_ops) out.note("planned recompute of cheap operations: Megatron-LM has no such choice");
  Recomputation known = r;
  known.cheap_ops = false;
  if (!known.any_module()) return;
  std::string modules = to_string(known);
  for (char& c : modules)
    if (c == '+') c = ' ';
  out.set("--recompute-granularity", "selective");
  out.set("--recompute-modules", modules);
}

void precision(const TrainingSetup& setup, Flags& out) {
  switch (setup.work.precision) {
    case TrainingPrecision::float32:
      return;
    case TrainingPrecision::fp16:
      return out.flag("--fp16");
    case TrainingPrecision::bf16:
      return out.flag("--bf16");
    case TrainingPrecision::nvfp4:
      out.flag("--bf16"), out.set("--fp4-format", "e2m1"), out.set("--fp4-recipe", "nvfp4");
      return;
    default:
      break;
  }
  bool scaled = setup.work.precision == TrainingPrecision::fp8;
  out.flag("--bf16"), out.set("--fp8-format", scaled ? "hybrid" : "e4m3");
  bool blocks = setup.work.precision == TrainingPrecision::fp8_block;
  out.set("--fp8-recipe", scaled ? "tensorwise" : blocks ? "blockwise" : "mxfp8");
}

void sharding(const TrainingSetup& setup, Flags& out) {
  const TrainingLayout& l = setup.layout;
  if (l.sharding == Sharding::none) return;
  out.flag("--use-distributed-optimizer");
  if (l.sharding != Sharding::optimizer) {
    out.flag("--use-megatron-fsdp");
    out.set("--data-parallel-sharding-strategy",
            l.sharding == Sharding::parameters ? "optim_grads_params" : "optim_grads");
    if (l.dp > 1 && l.fsdp > 1) out.set("--num-distributed-optimizer-instances", l.dp);
  }
  if (!setup.options.overlap_dp) return;
  out.flag("--overlap-grad-reduce"), out.flag("--overlap-param-gather");
}

}  // namespace

Result<std::string> emit_megatron(const GpuPlanRequest&, const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  if (l.schedule != PipelineKind::one_f_one_b && l.pp > 1)
    return invalid("Megatron-LM runs 1f1b and interleaved 1f1b, not {}: plan with --layout ...,schedule=1f1b",
                   to_string(l.schedule));
  if (l.order != kInner && l.order != kPipelineInside)
    return invalid("Megatron-LM orders ranks tp-cp-dp-pp or tp-cp-pp-dp; plan with one of these orders");
  Flags out(torchrun(l.devices()) + " pretrain_gpt.py");
  out.note(fmt::format(
      "{} on {} devices; add the model's own arguments (--num-layers {} --hidden-size {} ...), data "
      "and schedule of the learning rate",
      setup.model.name, l.devices(), setup.model.layers(), setup.model.hidden));
  out.set("--tensor-model-parallel-size", l.tp);
  if (l.sequence_parallel && l.tp > 1) out.flag("--sequence-parallel");
  megatron_pipeline(setup, out);
  if (l.cp > 1) out.set("--context-parallel-size", l.cp);
  if (l.ep > 1) out.set("--expert-model-parallel-size", l.ep);
  if (setup.model.is_moe() && l.expert_tp() != l.tp) out.set("--expert-tensor-parallel-size", l.expert_tp());
  if (l.order == kPipelineInside && l.pp > 1) out.flag("--use-tp-pp-dp-mapping");
  out.set("--micro-batch-size", l.micro_batch);
  out.set("--global-batch-size", setup.work.global_batch);
  out.set("--seq-length", setup.work.seq);
  precision(setup, out);
  sharding(setup, out);
  recomputation(setup, out);
  if (setup.options.gradient_bytes == 2 && setup.work.precision != TrainingPrecision::float32)
    out.flag("--grad-reduce-in-bf16");
  if (setup.options.fused_loss) out.flag("--cross-entropy-loss-fusion");
  if (setup.options.overlap_ep && l.ep > 1) out.flag("--overlap-moe-expert-parallel-comm");
  return out.text();
}

}  // namespace tessera::plan
