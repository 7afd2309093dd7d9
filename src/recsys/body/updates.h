// The optimizers on one row: values w, state as laid out in row_update.h, gradient g. The order of operations
// and the fused products are those of torch's kernels on a processor with FMA, so that the bits are the same.

inline float fused(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline float root(float x) {
  return __builtin_sqrtf(x);
}

void sgd(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
         const float* __restrict g) {
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = step.weight_decay != 0 ? fused(w[i], step.weight_decay, g[i]) : g[i];
    if (step.momentum != 0) {
      float velocity = state[i] * step.momentum + gradient;
      state[i] = velocity;
      gradient = step.nesterov ? fused(velocity, step.momentum, gradient) : velocity;
    }
    w[i] = fused(gradient, -step.learning_rate, w[i]);
  }
}

void adagrad(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict sum,
             const float* __restrict g) {
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = step.weight_decay != 0 ? fused(w[i], step.weight_decay, g[i]) : g[i];
    float before = sum[i], after = before + gradient * gradient;
    sum[i] = after;
    float divisor = root(step.accumulate_after ? before : after) + step.epsilon;
    w[i] = w[i] + -step.learning_rate * gradient / divisor;
  }
}

void adagrad_row(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict sum,
                 const float* __restrict g) {
  float before = sum[0], after = before + sum_of_squares(g, dim) / static_cast<float>(dim);
  sum[0] = after;
  float rate = step.learning_rate / (root(step.accumulate_after ? before : after) + step.epsilon);
  float decay = 1.0f - step.learning_rate * step.weight_decay;
  for (int64_t i = 0; i < dim; ++i) w[i] = decay * w[i] - rate * g[i];
}

inline void adam_moments(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict first,
                         float* __restrict second, const float* __restrict g, float l2_decay) {
  for (int64_t i = 0; i < dim; ++i) {
    float gradient = l2_decay != 0 ? fused(w[i], l2_decay, g[i]) : g[i];
    float m = fused(step.one_minus_beta1, gradient - first[i], first[i]);
    float v = second[i] * step.beta2 + step.one_minus_beta2 * gradient * gradient;
    first[i] = m;
    second[i] = v;
    float divisor = root(v) / step.root_correction + step.epsilon;
    w[i] = w[i] + -step.step_size * m / divisor;
  }
}
void adam(const RowStep& step, int64_t dim, float* w, float* state, const float* g) {
  adam_moments(step, dim, w, state, state + dim, g, step.weight_decay);
}
void adamw(const RowStep& step, int64_t dim, float* w, float* state, const float* g) {
  for (int64_t i = 0; i < dim; ++i) w[i] *= step.decay_factor;
  adam_moments(step, dim, w, state, state + dim, g, 0);
}

void ftrl(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
          const float* __restrict g) {
  float* __restrict z = state;
  float* __restrict n = state + dim;
  for (int64_t i = 0; i < dim; ++i) {
    float before = root(n[i]);
    n[i] += g[i] * g[i];
    float after = root(n[i]);
    z[i] += g[i] - (after - before) * step.ftrl_alpha_inverse * w[i];
    float magnitude = z[i] < 0 ? -z[i] : z[i];
    float pull = magnitude > step.l1 ? magnitude - step.l1 : 0.0f;
    float divisor = (step.ftrl_beta + after) * step.ftrl_alpha_inverse + step.l2;
    w[i] = (z[i] < 0 ? pull : -pull) / divisor;
  }
}

inline float lamb_direction(const RowStep& step, float m, float divisor, float w) {
  return m / step.first_correction / divisor + step.weight_decay * w;
}
void lamb_row(const RowStep& step, int64_t dim, float* __restrict w, float* __restrict state,
              const float* __restrict g) {
  float* second = state + dim;
  *second = step.beta2 * *second + step.one_minus_beta2 * (sum_of_squares(g, dim) / static_cast<float>(dim));
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
}
