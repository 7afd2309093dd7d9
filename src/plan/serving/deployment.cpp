#include "plan/serving/deployment.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/nearest.h"
#include "core/text.h"

namespace tessera::plan::serving {

std::string to_string(const WorkerLayout& layout) {
  std::string text = fmt::format("tp={}", layout.tp);
  if (layout.pp > 1) text += fmt::format(",pp={}", layout.pp);
  if (layout.dp > 1) text += fmt::format(",dp={}", layout.dp);
  if (layout.moe_ep > 1) text += fmt::format(",ep={}", layout.moe_ep);
  if (layout.moe_ep > 1 && layout.moe_tp > 1) text += fmt::format(",moe_tp={}", layout.moe_tp);
  return text;
}

Result<WeightFormat> parse_weight_format(const std::string& name) {
  static const std::map<std::string, WeightFormat> formats = {
      {"float32", WeightFormat::float32}, {"fp32", WeightFormat::float32},  {"bf16", WeightFormat::bf16},
      {"fp16", WeightFormat::bf16},       {"float16", WeightFormat::bf16},  {"bfloat16", WeightFormat::bf16},
      {"fp8", WeightFormat::fp8},         {"fp8_block", WeightFormat::fp8}, {"int8", WeightFormat::fp8},
      {"nvfp4", WeightFormat::nvfp4},     {"fp4", WeightFormat::nvfp4},     {"mxfp4", WeightFormat::mxfp4},
      {"int4", WeightFormat::int4},       {"int4_wo", WeightFormat::int4},
  };
  std::string lower = lower_ascii(name);
  auto found = formats.find(lower);
  if (found != formats.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, format] : formats) names.push_back(known);
  return invalid("unknown weight format '{}'{}", name, did_you_mean(lower, names));
}

Formats formats_for(const Blueprint& model, WeightFormat products, WeightFormat experts, double kv_bytes) {
  bool four_bit =
      products != WeightFormat::float32 && products != WeightFormat::bf16 && products != WeightFormat::fp8;
  bool only_experts = four_bit && model.is_moe();
  WeightFormat rest = only_experts ? WeightFormat::bf16 : products;
  return {.attention = rest, .ffn = rest, .experts = experts, .kv_bytes = kv_bytes};
}

double Speculation::tokens_per_step() const {
  if (depth == 0) return 1;
  if (acceptance >= 1) return static_cast<double>(depth + 1);
  return (1 - std::pow(acceptance, static_cast<double>(depth + 1))) / (1 - acceptance);
}

Status check(const Deployment& d) {
  const WorkerLayout& l = d.layout;
  if (l.tp < 1 || l.pp < 1 || l.dp < 1 || l.moe_tp < 1 || l.moe_ep < 1)
    return invalid("layout {} has a degree below 1", to_string(l));
  if (l.pp > d.model.layers())
    return invalid("pp={} but {} has {} layers", l.pp, d.model.name, d.model.layers());
  for (const Layer& layer : d.model.kinds) {
    if (layer.mixer.heads > 0 && l.tp > layer.mixer.heads)
      return invalid("tp={} but {} has {} heads to share", l.tp, d.model.name, layer.mixer.heads);
    if (layer.ffn.kind != FfnKind::moe) continue;
    if (l.moe_ep > layer.ffn.experts)
      return invalid("ep={} but {} has {} experts", l.moe_ep, d.model.name, layer.ffn.experts);
    if (l.moe_tp * l.moe_ep != l.tp * l.dp)
      return invalid(
          "experts lie on moe_tp {} x ep {} ranks but attention on tp {} x dp {}; the products must be equal",
          l.moe_tp, l.moe_ep, l.tp, l.dp);
  }
  if (d.device.memory_bytes_per_s <= 0) return invalid("accelerator {} has no memory bandwidth", d.device.name);
  return {};
}

}  // namespace tessera::plan::serving
