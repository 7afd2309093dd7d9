// `tessera train` reads TOML, `tessera serve` flags.
#include "plan/emit/flags.h"
#include "plan/emit/targets.h"

namespace tessera::plan {
namespace {

std::string work_toml(int64_t seq, int64_t micro_batch, int64_t global_batch, const char* precision) {
  return fmt::format("[work]\nseq = {}\nmicro_batch = {}\nglobal_batch = {}\nprecision = \"{}\"\n", seq,
                     micro_batch, global_batch, precision);
}

std::string layout_toml(const Layout& layout) {
  std::string text = "\n[layout]\n";
  const std::pair<const char*, int64_t> degrees[] = {{"dp", layout.dp},
                                                     {"fsdp", layout.fsdp},
                                                     {"tp", layout.tp},
                                                     {"pp", layout.pp},
                                                     {"cp", layout.cp},
                                                     {"ep", layout.ep},
                                                     {"virtual_stages", layout.virtual_stages}};
  for (const auto& [name, degree] : degrees)
    if (degree != 1) text += fmt::format("{} = {}\n", name, degree);
  if (layout.order != Layout{}.order) {
    Layout order;
    order.order = layout.order;
    text += fmt::format("order = \"{}\"\n", to_string(order).substr(6));
  }
  if (layout.pp > 1) text += fmt::format("schedule = \"{}\"\n", to_string(layout.schedule));
  return text + fmt::format("recompute = \"{}\"\n", to_string(layout.recompute));
}

}  // namespace

Result<std::string> emit_tessera(const GpuPlanRequest&, const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  Layout layout{.dp = l.dp, .fsdp = l.fsdp, .tp = l.tp, .pp = l.pp, .cp = l.cp, .ep = l.ep, .order = l.order};
  if (l.schedule == PipelineKind::gpipe) layout.schedule = PipelineSchedule::gpipe;
  if (l.schedule != PipelineKind::gpipe && l.schedule != PipelineKind::one_f_one_b)
    return invalid("tessera trains with gpipe and 1f1b, not {}: plan with --layout ...,schedule=1f1b",
                   to_string(l.schedule));
  layout.virtual_stages = l.virtual_stages;
  std::string notes = fmt::format(
      "# {}: put its config.json under [model] path; [data], [optimizer] as you like\n", setup.model.name);
  if (l.cp > 1 || l.virtual_stages > 1)
    notes += "# cp and virtual_stages are planned and not yet trained by this version\n";
  if (l.recompute.full != Recomputation::Full::none) layout.recompute = Recompute::full;
  if (l.recompute.full == Recomputation::Full::none ? l.recompute.any_module()
                                                    : to_string(l.recompute) != "full")
    notes += fmt::format("# planned recompute = {}: tessera has none and full\n", to_string(l.recompute));
  if (setup.work.precision != TrainingPrecision::bf16 && setup.work.precision != TrainingPrecision::float32)
    notes += fmt::format("# planned precision = {}: tessera trains in bf16 and float32\n",
                         to_string(setup.work.precision));
  if (l.sharding == Sharding::none || l.sharding == Sharding::gradients)
    notes +=
        fmt::format("# planned sharding = {}: tessera shards optimizer states over dp, parameters over fsdp\n",
                    to_string(l.sharding));
  if (l.etp > 0 && l.etp != l.tp)
    notes += fmt::format("# planned etp = {}: tessera splits experts by tp as well\n", l.etp);
  const char* precision = setup.work.precision == TrainingPrecision::float32 ? "float32" : "bf16";
  std::string work = work_toml(setup.work.seq, l.micro_batch, setup.work.global_batch, precision);
  if (l.tp > 1) work += fmt::format("tp_blocks = {}\n", l.tp);
  return notes + work + layout_toml(layout);
}

Result<std::string> emit_tessera(const Request& request, const Prediction& best) {
  const Work& work = best.work;
  return fmt::format("# planned for {}; [model], [data] and [optimizer] as you like\n", request.cluster.name) +
         work_toml(work.seq, work.micro_batch, work.global_batch, to_string(work.precision)) +
         fmt::format("numerics = \"{}\"\ntp_blocks = {}\nseq_chunks = {}\n", to_string(work.numerics),
                     work.tp_blocks, work.seq_chunks) +
         layout_toml(best.layout);
}

Result<std::string> emit_tessera(const serving::SearchRequest& request, const ServingRole& role) {
  if (role.phase != ServingRole::both)
    return invalid("tessera serve does prompts and answers in one worker; give --layout for such workers");
  // Experts are cut by tp like all else, and spread over the replicas of attention.
  const serving::WorkerLayout& worker = role.layout;
  const bool spreads = worker.moe_tp * worker.moe_ep > 1 && worker.dp > 1;
  Flags out("tessera serve");
  out.set("--model", "DIR");
  const Layout layout{.dp = worker.dp, .tp = worker.tp, .pp = worker.pp, .ep = spreads ? worker.dp : 1};
  if (worker.gpus() > 1) out.set("--layout", to_string(layout));
  if (spreads && worker.moe_tp != worker.tp)
    out.note(fmt::format("planned with each expert on {} ranks; tessera cuts experts by tp={}", worker.moe_tp,
                         worker.tp));
  out.set("--dtype", "bf16");
  // Sizes are of the whole server, which shares them among its replicas.
  out.set("--max-running", role.sequences * worker.dp);
  out.set("--max-batch-tokens", static_cast<int64_t>(request.engine.budget_tokens) * worker.dp);
  if (!as_published(request) || request.model.ffn_format != WeightFormat::bf16)
    out.note("weights in few bits: export them first (tessera checkpoint export --quantize)");
  if (request.formats.kv_bytes < 2) out.note("the cache is held in --dtype; planned: 8 bits");
  if (request.speculation.depth > 0)
    out.note("planned with a draft model; tessera guesses from repetitions in the text: --guess");
  return out.text();
}

}  // namespace tessera::plan
