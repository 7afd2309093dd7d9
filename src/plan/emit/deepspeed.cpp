// DeepSpeed's JSON file. It has no comments, and the integrations that read it take plain JSON: notes are a key
// of their own, which DeepSpeed does not look at.
#include "plan/emit/targets.h"

namespace tessera::plan {
namespace {

Status check_stage(const TrainingLayout& l) {
  int stage = static_cast<int>(l.sharding);
  if (l.pp > 1 && stage > 1)
    return invalid("DeepSpeed's pipelines run with ZeRO 0 and 1, not {}: plan with sharding=optimizer", stage);
  if (l.tp > 1 && stage > 2)
    return invalid("DeepSpeed's tensor parallelism runs with ZeRO 0 to 2, not 3: plan with sharding=gradients");
  if (l.virtual_stages > 1 || (l.pp > 1 && l.schedule != PipelineKind::one_f_one_b))
    return invalid("DeepSpeed's pipelines run 1f1b with one chunk a stage: plan with virtual_stages=1");
  return {};
}

std::vector<std::string> notes_of(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  std::vector<std::string> notes = {fmt::format("{} on {} devices", setup.model.name, l.devices())};
  if (l.pp > 1) notes.push_back(fmt::format("pp = {}: in code, PipelineModule(num_stages={})", l.pp, l.pp));
  if (l.cp > 1)
    notes.push_back(fmt::format("cp = {}: in code, as the sequence-parallel size of Ulysses", l.cp));
  if (l.ep > 1) notes.push_back(fmt::format("ep = {}: in code, MoE(ep_size={})", l.ep, l.ep));
  if (l.recompute != Recomputation{})
    notes.push_back(fmt::format("recompute = {}: in code, with deepspeed.checkpointing.checkpoint",
                                to_string(l.recompute)));
  if (is_8_bit_or_less(setup.work.precision))
    notes.push_back(fmt::format("precision = {}: DeepSpeed has no switch; its model must use such layers",
                                to_string(setup.work.precision)));
  if (l.sharding == Sharding::parameters && l.dp > 1)
    notes.push_back(fmt::format(
        "dp = {}: states are sharded over all devices; only gathers stay within {} (hpZ)", l.dp, l.fsdp));
  if (l.tp > 1 && l.sequence_parallel)
    notes.push_back("sp = on: DeepSpeed's tensor parallelism keeps whole activations between its regions");
  notes.push_back(fmt::format("sequences of {} tokens: a matter of the data", setup.work.seq));
  return notes;
}

}  // namespace

Result<std::string> emit_deepspeed(const GpuPlanRequest&, const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  TESSERA_RETURN_IF_ERROR(check_stage(l));
  std::string text = "{\n  \"tessera_notes\": [";
  std::vector<std::string> notes = notes_of(setup);
  for (size_t i = 0; i < notes.size(); ++i) text += fmt::format("{}\n    \"{}\"", i > 0 ? "," : "", notes[i]);
  text += fmt::format(
      "\n  ],\n  \"train_batch_size\": {},\n  \"train_micro_batch_size_per_gpu\": {},\n"
      "  \"gradient_accumulation_steps\": {},\n",
      setup.work.global_batch, l.micro_batch, setup.micro_batches());
  bool half = setup.work.precision == TrainingPrecision::fp16;
  bool wide = setup.work.precision == TrainingPrecision::float32;
  if (!wide) text += fmt::format("  \"{}\": {{\"enabled\": true}},\n", half ? "fp16" : "bf16");
  if (l.tp > 1) text += fmt::format("  \"tensor_parallel\": {{\"autotp_size\": {}}},\n", l.tp);
  text += fmt::format("  \"zero_optimization\": {{\n    \"stage\": {},\n    \"overlap_comm\": {}",
                      static_cast<int>(l.sharding), setup.options.overlap_dp ? "true" : "false");
  if (l.sharding == Sharding::parameters && l.dp > 1)
    text += fmt::format(",\n    \"zero_hpz_partition_size\": {}", l.fsdp);
  if (l.offload_optimizer) text += ",\n    \"offload_optimizer\": {\"device\": \"cpu\"}";
  return text + "\n  }\n}\n";
}

}  // namespace tessera::plan
