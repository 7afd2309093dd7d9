#include "plan/training/workspace.h"

#include <algorithm>
#include <set>

#include "core/numbers.h"
#include "plan/training/saved_tensors.h"
#include "plan/training/states.h"

namespace tessera::plan {
namespace {

double dense_backward(const TrainingSetup& setup, const Ffn& f) {
  double element = element_bytes(setup), tp = real(setup.layout.tp);
  return element * (f.gated ? 2 : 1) * real(f.width) / tp * token_share(setup);
}

// Gradients of the experts' inputs and of their activation; the permuted tokens stand twice while they travel.
double experts_backward(const TrainingSetup& setup, const Ffn& f) {
  double rows = expert_rows(setup, f), element = element_bytes(setup);
  double inner = real(f.expert_hidden > 0 ? f.expert_hidden : setup.model.hidden);
  double activation = (f.gated ? 2 : 1) * real(f.expert_width) / real(setup.layout.expert_tp());
  return element * rows * (2 * inner + activation);
}

double scores_backward(const TrainingSetup& setup, const Mixer& m) {
  bool attends = m.kind == MixerKind::attention || m.kind == MixerKind::mla;
  if (setup.options.flash_attention || !attends) return 0;
  return element_bytes(setup) * real(m.heads * setup.work.seq) / real(setup.layout.tp) * token_share(setup);
}

// Bytes per logit at the worst moment of loss and its backward. Megatron fused: the 16-bit logits become their
// own gradient; under context parallelism a second copy is seen. Unfused: 16-bit logits beside the float32
// softmax. PyTorch: 16-bit logits, float32 logits, their log-softmax and its gradient; compiled, one float32
// copy.
double loss_bytes_per_logit(const TrainingSetup& setup) {
  bool fused = setup.options.fused_loss;
  bool torch = setup.options.framework == Framework::fsdp1 || setup.options.framework == Framework::fsdp2;
  if (torch) return fused ? 4 : 14;
  if (!fused) return 6;
  return setup.layout.cp > 1 ? 4 : 2;
}

}  // namespace

double layer_backward_bytes(const TrainingSetup& setup, const Layer& layer) {
  double widest = scores_backward(setup, layer.mixer);
  if (layer.ffn.kind == FfnKind::dense) widest = std::max(widest, dense_backward(setup, layer.ffn));
  if (layer.ffn.kind == FfnKind::moe) widest = std::max(widest, experts_backward(setup, layer.ffn));
  return widest + 2 * hidden_bytes(setup);
}

double head_bytes(const TrainingSetup& setup) {
  double logits = token_share(setup) * real(setup.model.vocab) / real(setup.layout.tp);
  double hidden = setup.layout.cp > 1 ? 0 : 3 * hidden_bytes(setup) + 2.5 * hidden_shard_bytes(setup);
  if (setup.layout.cp > 1 && setup.layout.sequence_parallel) hidden = 2 * hidden_bytes(setup);
  return loss_bytes_per_logit(setup) * logits + hidden;
}

PlaceholderBytes placeholder_bytes(const TrainingSetup& setup) {
  const TrainingOptions& o = setup.options;
  bool transformer_engine = o.framework == Framework::megatron && o.flash_attention;
  if (!transformer_engine || setup.work.precision == TrainingPrecision::float32) return {};
  std::set<std::pair<double, int64_t>> shapes;
  double elements = 0;
  for (const Layer& layer : setup.model.kinds) {
    std::set<std::string> fused;
    for (const Weight& weight : weights(setup.model, layer)) {
      if (!weight.is_product()) continue;
      double one = rank_elements(setup, weight);
      if (weight.part == Part::experts) one = real(weight.out * weight.in) / real(setup.layout.expert_tp());
      if (shapes.insert({one, weight.in}).second || fused.contains(weight.product)) elements += one;
      fused.insert(weight.product);
    }
  }
  return {2 * elements, 2 * real(setup.model.vocab * setup.model.hidden) / real(setup.layout.tp)};
}

}  // namespace tessera::plan
