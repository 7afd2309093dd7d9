// The optimizers on one row: values w, state as laid out in row_update.h, gradient g. The order of operations
// and the fused products are those of torch's kernels on a processor with FMA, so that the bits are the same.

inline float fused(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
constexpr float kLargest = 0x1.fffffep127f;

inline float root(float x) {
  return __builtin_sqrtf(x);
}

// Constants are copied before each loop: a store through float* might change what `step` refers to, as far as
// the compiler knows. A decay of 0 is added too: it changes no bit of a finite value but the sign of a zero
// gradient.

void sgd_plain(float decay, float rate, int64_t dim, float* __restrict w, const float* __restrict g) {
  for (int64_t i = 0; i < dim; ++i) w[i] = fused(fused(w[i], decay, g[i]), -rate, w[i]);
}
void sgd_momentum(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
                  const float* __restrict g) {
  const float decay = step.weight_decay, rate = step.learning_rate, momentum = step.momentum;
  const bool nesterov = step.nesterov;
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = fused(w[i], decay, g[i]);
    float velocity = state[i] * momentum + gradient;
    float ahead = fused(velocity, momentum, gradient);
    state[i] = velocity;
    w[i] = fused(nesterov ? ahead : velocity, -rate, w[i]);
  }
}
bool sgd(const RowStep& step, int64_t dim, float* w, float* state, const float* g) {
  if (!finite(g, dim)) return false;
  if (step.momentum != 0) {
    sgd_momentum(step, dim, w, state, g);
  } else {
    sgd_plain(step.weight_decay, step.learning_rate, dim, w, g);
  }
  return true;
}

bool adagrad(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict sum,
             const float* __restrict g) {
  if (!finite(g, dim)) return false;
  const float decay = step.weight_decay, rate = step.learning_rate, epsilon = step.epsilon;
  const bool accumulate_after = step.accumulate_after;
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = fused(w[i], decay, g[i]);
    float before = sum[i], after = fused(gradient, gradient, before);
    sum[i] = after;
    float divisor = root(accumulate_after ? before : after) + epsilon;
    w[i] = w[i] + -rate * gradient / divisor;
  }
  return true;
}

bool adagrad_row(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict sum,
                 const float* __restrict g) {
  float squares = sum_of_squares(g, dim);
  if (!(squares <= kLargest)) return false;
  float before = sum[0], after = before + squares / static_cast<float>(dim);
  sum[0] = after;
  float rate = step.learning_rate / (root(step.accumulate_after ? before : after) + step.epsilon);
  float decay = 1.0f - step.learning_rate * step.weight_decay;
  for (int64_t i = 0; i < dim; ++i) w[i] = decay * w[i] - rate * g[i];
  return true;
}

inline void adam_moments(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict first,
                         float* __restrict second, const float* __restrict g, float l2_decay) {
  const float weight1 = step.one_minus_beta1, beta2 = step.beta2, weight2 = step.one_minus_beta2;
  const float correction = step.root_correction, epsilon = step.epsilon, rate = step.step_size;
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = fused(w[i], l2_decay, g[i]);
    float m = fused(weight1, gradient - first[i], first[i]);
    float v = fused(weight2 * gradient, gradient, second[i] * beta2);
    first[i] = m;
    second[i] = v;
    float divisor = root(v) / correction + epsilon;
    w[i] = w[i] + -rate * m / divisor;
  }
}
bool adam(const RowStep& step, int64_t dim, float* w, float* state, const float* g) {
  if (!finite(g, dim)) return false;
  adam_moments(step, dim, w, state, state + dim, g, step.weight_decay);
  return true;
}
bool adamw(const RowStep& step, int64_t dim, float* w, float* state, const float* g) {
  if (!finite(g, dim)) return false;
  const float factor = step.decay_factor;
  for (int64_t i = 0; i < dim; ++i) w[i] *= factor;
  adam_moments(step, dim, w, state, state + dim, g, 0);
  return true;
}

bool ftrl(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
          const float* __restrict g) {
  if (!finite(g, dim)) return false;
  float* __restrict z = state;
  float* __restrict n = state + dim;
  const float inverse = step.ftrl_alpha_inverse, beta = step.ftrl_beta, l1 = step.l1, l2 = step.l2;
  for (int64_t i = 0; i < dim; ++i) {
    float before = root(n[i]), squares = n[i] + g[i] * g[i], after = root(squares);
    float lean = z[i] + (g[i] - (after - before) * inverse * w[i]);
    n[i] = squares;
    z[i] = lean;
    float magnitude = lean < 0 ? -lean : lean;
    float pull = magnitude > l1 ? magnitude - l1 : 0.0f;
    float size = pull / ((beta + after) * inverse + l2);
    w[i] = lean < 0 ? size : -size;
  }
  return true;
}

inline float lamb_direction(const RowStep& step, float m, float divisor, float w) {
  return m / step.first_correction / divisor + step.weight_decay * w;
}
bool lamb_row(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
              const float* __restrict g) {
  float squares = sum_of_squares(g, dim);
  if (!(squares <= kLargest)) return false;
  float* second = state + dim;
  *second = step.beta2 * *second + step.one_minus_beta2 * (squares / static_cast<float>(dim));
  float divisor = root(*second) / step.root_correction + step.epsilon;
  float lanes[kRowLanes] = {};
  for (int64_t i = 0; i < dim; ++i) {
    state[i] = step.beta1 * state[i] + step.one_minus_beta1 * g[i];
    float r = lamb_direction(step, state[i], divisor, w[i]);
    lanes[i % kRowLanes] += r * r;
  }
  float length = root(sum_of_squares(w, dim)), direction = root(lane_tree(lanes));
  float trust = length > 0 && direction > 0 ? length / direction : 1.0f;
  for (int64_t i = 0; i < dim; ++i)
    w[i] -= step.learning_rate * trust * lamb_direction(step, state[i], divisor, w[i]);
  return true;
}
