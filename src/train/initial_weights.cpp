#include "train/initial_weights.h"

#include <cmath>
#include <numbers>

#include "train/fingerprint.h"

namespace tessera::train {
namespace {

// Box-Muller on two uniform numbers hashed from the counter.
float normal_at(uint64_t key, int64_t index) {
  uint64_t bits = mix(key + 2 * static_cast<uint64_t>(index)),
           other = mix(key + 2 * static_cast<uint64_t>(index) + 1);
  double u = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53, v = static_cast<double>(other >> 11) * 0x1p-53;
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

double deviation(const ModelSpec& spec, Role role) {
  bool into_residual = role == Role::o || role == Role::down;
  return spec.init_range / (into_residual ? std::sqrt(2.0 * static_cast<double>(spec.layers)) : 1.0);
}

}  // namespace

void initialise(model::Unit& unit, const ModelSpec& spec, uint64_t seed) {
  for (const SlicePart& part : slice_parts(unit)) {
    at::Tensor values = part.of(unit.master);
    if (part.tensor->spec.shape.size() == 1) {
      values.fill_(1);
      continue;
    }
    uint64_t key = mix(seed + 1) ^ name_key(part.tensor->spec.name);
    auto scale = static_cast<float>(deviation(spec, part.tensor->spec.role));
    float* out = values.data_ptr<float>();
    for_each_run(part, [&](int64_t index, int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; ++i) out[at + i] = scale * normal_at(key, index + i);
    });
  }
  unit.moment1.zero_();
  unit.moment2.zero_();
  unit.publish();
}

}  // namespace tessera::train
