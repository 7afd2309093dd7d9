// Rows of layers that are served and not trained: compiled once per ISA, included inside its namespace after
// rows.h, whose steps and sums it takes.

float layer_norm(const Source& x, const Source& weight, const Source& bias, float eps, const Target& y,
                 int64_t width) {
  F16 total = zero();
  for (int64_t i = 0; i < width; i += 16) total = total + load_at(x, i, width);
  const F16 mean = splat(sum(total) / static_cast<float>(width));
  F16 squares = zero();
  for (int64_t i = 0; i < width; i += 16) {
    const F16 d = select(lanes(0, width - i), load_at(x, i, width) - mean, zero());
    squares = fma(d, d, squares);
  }
  const float rstd = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 normal = (load_at(x, i, width) - mean) * splat(rstd);
    store_at(y, fma(normal, load_at(weight, i, width), load_at(bias, i, width)), i, width);
  }
  return rstd;
}

inline F16 min(F16 a, F16 b) {
  return select(less(a, b), a, b);
}

inline F16 sigmoid(F16 x) {
  return splat(1.0f) / (splat(1.0f) + exp(zero() - x));
}

void sigmoid(const float* x, float* y, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) store_at(y, sigmoid(load_at(x, i, width)), i, width);
}

void swiglu_clamped(const Source& gate, const Source& up, float alpha, float limit, const Target& out,
                    int64_t width) {
  const F16 high = splat(limit), low = splat(-limit);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 g = min(load_at(gate, i, width), high);
    const F16 u = max(min(load_at(up, i, width), high), low);
    store_at(out, (u + splat(1.0f)) * (g * sigmoid(g * splat(alpha))), i, width);
  }
}

// x / (1 + exp(-2u)) is x (1 + tanh u) / 2.
void gelu_tanh(const Source& x, const Target& y, int64_t width) {
  const F16 two_root = splat(1.5957691216057308f), cubic = splat(0.044715f);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 v = load_at(x, i, width);
    const F16 u = two_root * fma(cubic * v * v, v, v);
    store_at(y, v * sigmoid(u), i, width);
  }
}

// x times the normal distribution; erfc by formula 7.1.26 of Abramowitz and Stegun, within 1.5e-7.
void gelu_erf(const Source& x, const Target& y, int64_t width) {
  const F16 one = splat(1.0f), half = splat(0.5f);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 v = load_at(x, i, width);
    const F16 z = max(v, zero() - v) * splat(0.7071067811865476f);
    const F16 t = one / fma(splat(0.3275911f), z, one);
    F16 p = fma(splat(1.061405429f), t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f)) * t;
    const F16 tail = half * p * exp(zero() - z * z);
    store_at(y, v * select(less(v, zero()), tail, one - tail), i, width);
  }
}
