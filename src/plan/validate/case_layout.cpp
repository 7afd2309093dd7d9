#include <algorithm>
#include <cmath>

#include "plan/validate/training_case.h"

// Layout and cluster of a row.
namespace tessera::plan {
namespace {

// Free text of the tables in the words of parse_recomputation.
std::string recompute_words(const std::string& text) {
  struct Phrase {
    const char* part;
    const char* words;
  };
  constexpr Phrase phrases[] = {{"every other layer", "full:every=2"},
                                {"block subset", "full:every=3"},
                                {"full", "full"},
                                {"yes", "full"},
                                {"none", "none"},
                                {"attention core", "core_attn"},
                                {"per-op", "cheap_ops"},
                                {"config default", "cheap_ops"},
                                {"minimal_flash", "cheap_ops"},
                                {"expensive linears", "cheap_ops"},
                                // With SwiGLU's output, as the same section of DeepSeek's report says.
                                {"RMSNorm and MLA", "layernorm+mla_up_proj+moe_act"}};
  for (const Phrase& phrase : phrases)
    if (text.find(phrase.part) != std::string::npos) return phrase.words;
  size_t colon = text.find(": ");
  if (colon == std::string::npos) return "none";
  std::string modules = text.substr(colon + 2);
  return modules.substr(0, modules.find(' '));
}

// Hardware FLOPs over model FLOPs say how much of the forward pass runs twice: layers of the first piece, as
// many.
void read_recomputed_share(RowReader& row, TrainingLayout& layout) {
  const std::string& text = row.text("recompute");
  size_t at = text.find("HFU ");
  auto model = row.number("mfu_pct");
  if (at == std::string::npos || !model || *model <= 0 || layout.pp > 1) return;
  double share = 3 * (std::stod(text.substr(at + 4)) / *model - 1);
  if (share <= 0 || share >= 1) return;
  layout.recompute = {.full = Recomputation::Full::first,
                      .layers = std::lround(share * static_cast<double>(row.integer("n_layers")))};
  row.assume("recompute", to_string(layout.recompute) + ", as HFU over MFU says");
}

// XLA compiles one program for a replica's whole batch and keeps activations between layers split over the
// model axis.
void read_compiled_program(RowReader& row, TrainingLayout& layout) {
  if (!row.mentions("gpu", "TPU") || layout.pp > 1) return;
  if (row.text("micro_batch").empty() && row.integer("global_batch") % layout.replicas() == 0) {
    layout.micro_batch = row.integer("global_batch") / layout.replicas();
    row.assume("micro_batch", fmt::format("{}: a replica's batch at once", layout.micro_batch));
  }
  if (!row.text("seq_parallel").empty() || layout.tp == 1) return;
  layout.sequence_parallel = row.integer("hidden") % layout.tp == 0;
}

Sharding sharding_of(const std::string& text, bool old) {
  if (text.starts_with("3") || text.starts_with("2-3")) return Sharding::parameters;
  if (text.starts_with("2")) return Sharding::gradients;
  if (text.starts_with("1")) return Sharding::optimizer;
  return text.empty() && !old ? Sharding::optimizer : Sharding::none;
}

void read_sharding(RowReader& row, TrainingLayout& layout, int64_t replicas) {
  const std::string& text = row.text("zero_stage");
  bool old = row.mentions("source", "SC21") || row.mentions("source", "MT-NLG");
  layout.sharding = sharding_of(text, old);
  if (text.empty()) row.assume("zero_stage", old ? "0" : "1");
  layout.dp = replicas, layout.fsdp = 1;
  if (layout.sharding != Sharding::parameters && layout.sharding != Sharding::gradients) return;
  layout.fsdp = replicas, layout.dp = 1;
  layout.keep_gathered = text.starts_with("2-3");
  if (text.find("within node") != std::string::npos && replicas % 8 == 0)
    layout.fsdp = 8, layout.dp = replicas / 8;
}

// NVIDIA's recipes interleave one layer at a time; a source that mentions interleaving without its degree is
// taken at two chunks; all others at one.
int64_t virtual_stages_of(RowReader& row, int64_t pp) {
  if (pp == 1) return 1;
  int64_t layers = row.integer("n_layers") / pp;
  if (row.mentions("source", "NeMo") || row.mentions("source", "Megatron-LM README") ||
      row.mentions("source", "Nemotron-4"))
    return row.integer_or("vpp", std::max<int64_t>(1, layers));
  return row.integer_or("vpp", row.mentions("id", "interleaved") ? 2 : 1);
}

// Gb/s of the text "..8x HDR IB 200Gb/s per node..", "400Gb/s per GPU", per device; 0: not said.
double network_bytes_per_s(const std::string& text, double devices_per_host) {
  size_t at = text.find("Gb/s");
  if (at == std::string::npos) return 0;
  size_t first = at;
  while (first > 0 && (std::isdigit(static_cast<unsigned char>(text[first - 1])) != 0)) --first;
  if (first == at) return 0;
  double rate = std::stod(text.substr(first, at - first)) * 1e9 / 8;
  if (text.find("per node") == std::string::npos) return rate;
  size_t times = text.rfind("x ", first);
  if (times != std::string::npos && times > 0 && std::isdigit(static_cast<unsigned char>(text[times - 1])))
    rate *= text[times - 1] - '0';
  return rate / devices_per_host;
}

}  // namespace

Result<TrainingLayout> layout_of_row(RowReader& row) {
  TrainingLayout layout;
  for (const char* column : {"n_gpus", "seq_len", "global_batch", "tp", "pp"})
    TESSERA_RETURN_IF_ERROR(row.positive(column, "the layout"));
  layout.tp = row.integer("tp"), layout.pp = row.integer("pp");
  layout.cp = row.integer_or("cp", 1), layout.ep = row.integer_or("ep", 1);
  layout.etp = layout.ep > 1 ? 1 : 0;
  int64_t inner = layout.tp * layout.pp * layout.cp;
  if (row.integer("n_gpus") % inner != 0)
    return invalid("tp * pp * cp = {} does not divide n_gpus = {}", inner, row.integer("n_gpus"));
  int64_t replicas = row.integer("n_gpus") / inner;
  read_sharding(row, layout, replicas);
  layout.micro_batch = row.integer_or("micro_batch", 1);
  layout.virtual_stages = virtual_stages_of(row, layout.pp);
  if (row.mentions("notes", "DualPipe")) layout.schedule = PipelineKind::dualpipe;
  layout.sequence_parallel = layout.tp > 1 && row.text("seq_parallel").starts_with("y");
  const std::string& text = row.text("recompute");
  TESSERA_ASSIGN_OR_RETURN(layout.recompute, parse_recomputation(recompute_words(text)));
  if (text.empty() || text == "not stated") row.assume("recompute", "none");
  read_recomputed_share(row, layout);
  read_compiled_program(row, layout);
  if (text.find("RMSNorm and MLA") != std::string::npos) row.assume("recompute", to_string(layout.recompute));
  return layout;
}

Result<GpuCluster> cluster_of_row(RowReader& row) {
  std::string name = row.text("gpu");
  if (row.mentions("gpu", "A100-class")) name = "a100-80g";
  TESSERA_ASSIGN_OR_RETURN(GpuCluster cluster, load_gpu_cluster(name));
  double host = std::max(1.0, row.number("gpus_per_node").value_or(8));
  double rate = network_bytes_per_s(row.text("interconnect"), host);
  if (rate <= 0) {
    row.assume("interconnect", fmt::format("{:g} GB/s per device", cluster.tiers.back().bytes_per_s / 1e9));
    return cluster;
  }
  for (size_t tier = 1; tier < cluster.tiers.size(); ++tier) cluster.tiers[tier].bytes_per_s = rate;
  return cluster;
}

}  // namespace tessera::plan
