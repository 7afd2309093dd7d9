// Operations on rows: compiled once per ISA, included inside its namespace after products.h.
//
// A row is walked in steps of 16; the rest is a masked step, whose absent lanes hold +0. Sums have 16
// accumulators, one per lane, added at the end by the fixed tree of sum().

// exp(x) within 2 units in the last place; 0 below -87.33 (no subnormal results), infinity above 88.72.
// x = n ln 2 + r; exp(r) = 1 + r + r^2 q(r), q fitted on [-ln 2 / 2, ln 2 / 2] at the Chebyshev points.
inline F16 exp(F16 x) {
  const F16 low = splat(-87.33f), high = splat(88.72f);
  const F16 shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F16 t = fma(x, splat(0x1.715476p+0f), shift);
  const F16 n = t - shift;
  F16 r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(0.00021219444f), r);
  F16 q = splat(0x1.a1516cp-13f);
  q = fma(q, r, splat(0x1.6d431ap-10f));
  q = fma(q, r, splat(0x1.1110c6p-7f));
  q = fma(q, r, splat(0x1.5554eap-5f));
  q = fma(q, r, splat(0x1.555556p-3f));
  q = fma(q, r, splat(0.5f));
  const F16 p = fma(q, r * r, r) + splat(1.0f);
  F16 result = scale_by_power(p, t);
  result = select(less(x, low), zero(), result);
  result = select(less(high, x), splat(__builtin_inff()), result);
  return select(is_nan(x), x, result);
}

template <class T>
F16 load_at(const T* p, int64_t i, int64_t width) {
  return width - i >= 16 ? load(p + i) : load_part(p + i, width - i);
}
template <class T>
void store_at(T* p, F16 x, int64_t i, int64_t width) {
  if (width - i >= 16)
    store(p + i, x);
  else
    store_part(p + i, x, width - i);
}
inline F16 load_at(const Source& s, int64_t i, int64_t width) {
  return s.type == Type::f32 ? load_at(typed<float>(s.data), i, width) : load_at(typed<Bf16>(s.data), i, width);
}
inline void store_at(const Target& t, F16 x, int64_t i, int64_t width) {
  if (t.type == Type::f32)
    store_at(static_cast<float*>(t.data), x, i, width);
  else
    store_at(static_cast<Bf16*>(t.data), x, i, width);
}

inline Source row_of(const Source& s, int64_t row) {
  const int64_t size = s.type == Type::f32 ? 4 : 2;
  return {static_cast<const char*>(s.data) + row * s.stride * size, s.type, s.stride};
}
inline Target row_of(const Target& t, int64_t row) {
  const int64_t size = t.type == Type::f32 ? 4 : 2;
  return {static_cast<char*>(t.data) + row * t.stride * size, t.type, t.stride};
}

void convert(const Source& from, const Target& to, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    const Source x = row_of(from, row);
    const Target y = row_of(to, row);
    for (int64_t i = 0; i < width; i += 16) store_at(y, load_at(x, i, width), i, width);
  }
}

void add(const Source& a, const Source& b, const Target& out, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row) {
    const Source x = row_of(a, row), y = row_of(b, row);
    const Target z = row_of(out, row);
    for (int64_t i = 0; i < width; i += 16) store_at(z, load_at(x, i, width) + load_at(y, i, width), i, width);
  }
}

void add_scaled(const Source& x, float weight, float* into, int64_t width) {
  for (int64_t i = 0; i < width; i += 16)
    store_at(into, fma(splat(weight), load_at(x, i, width), load_at(into, i, width)), i, width);
}

void scale(const Source& x, float weight, const Target& y, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) store_at(y, splat(weight) * load_at(x, i, width), i, width);
}

void divide(const Source& x, float by, const Target& y, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) store_at(y, load_at(x, i, width) / splat(by), i, width);
}

float lane_sum(const float* lanes16) {
  return sum(load(lanes16));
}

float dot(const Source& x, const Source& y, int64_t width) {
  F16 total = zero();
  for (int64_t i = 0; i < width; i += 16) total = fma(load_at(x, i, width), load_at(y, i, width), total);
  return sum(total);
}

float rms_norm(const Source& x, const Source& weight, float eps, const Target& y, int64_t width) {
  const float mean = dot(x, x, width) / static_cast<float>(width);
  const float rstd = 1.0f / __builtin_sqrtf(mean + eps);
  for (int64_t i = 0; i < width; i += 16)
    store_at(y, load_at(x, i, width) * splat(rstd) * load_at(weight, i, width), i, width);
  return rstd;
}

// dx = rstd * (w dy - xhat * mean(w dy xhat)), xhat = x * rstd.
void rms_norm_dx(const Source& dy, const Source& x, const Source& weight, float rstd, const Target& dx,
                 int64_t width) {
  F16 total = zero();
  for (int64_t i = 0; i < width; i += 16) {
    const F16 xhat = load_at(x, i, width) * splat(rstd);
    total = fma(load_at(dy, i, width) * load_at(weight, i, width), xhat, total);
  }
  const F16 mean = splat(-(sum(total) / static_cast<float>(width)));
  for (int64_t i = 0; i < width; i += 16) {
    const F16 xhat = load_at(x, i, width) * splat(rstd);
    const F16 scaled = load_at(dy, i, width) * load_at(weight, i, width);
    store_at(dx, fma(xhat, mean, scaled) * splat(rstd), i, width);
  }
}

void rms_norm_dweight(const Source& dy, const Source& x, float rstd, float* dweight, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) {
    const F16 xhat = load_at(x, i, width) * splat(rstd);
    store_at(dweight, fma(load_at(dy, i, width), xhat, load_at(dweight, i, width)), i, width);
  }
}

// x holds `heads` heads of 2 * half elements side by side.
void rope(const Target& x, const float* cos, const float* sin, bool inverse, int64_t heads, int64_t half) {
  with_type(x.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t head = 0; head < heads; ++head) {
      T* low = static_cast<T*>(x.data) + head * 2 * half;
      T* high = low + half;
      for (int64_t i = 0; i < half; i += 16) {
        const F16 c = load_at(cos, i, half), forward = load_at(sin, i, half);
        const F16 s = inverse ? zero() - forward : forward;
        const F16 a = load_at(low, i, half), b = load_at(high, i, half);
        store_at(low, a * c - b * s, i, half);
        store_at(high, b * c + a * s, i, half);
      }
    }
  });
}

void silu_mul(const Source& gate, const Source& up, const Target& out, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) {
    const F16 g = load_at(gate, i, width);
    store_at(out, g / (splat(1.0f) + exp(zero() - g)) * load_at(up, i, width), i, width);
  }
}

void silu_mul_backward(const Source& dout, const Source& gate, const Source& up, const Target& dgate,
                       const Target& dup, int64_t width) {
  const F16 one = splat(1.0f);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 d = load_at(dout, i, width), g = load_at(gate, i, width), u = load_at(up, i, width);
    const F16 sigmoid = one / (one + exp(zero() - g));
    store_at(dup, d * g * sigmoid, i, width);
    store_at(dgate, d * u * sigmoid * fma(g, one - sigmoid, one), i, width);
  }
}

// Absent lanes of the last step are -infinity: without weight in a maximum or in a sum of exponentials.
inline F16 load_or_lowest(const float* x, int64_t i, int64_t width) {
  if (width - i >= 16) return load(x + i);
  return select(lanes(0, width - i), load_part(x + i, width - i), splat(-__builtin_inff()));
}

float row_max(const float* x, int64_t width) {
  F16 result = splat(-__builtin_inff());
  for (int64_t i = 0; i < width; i += 16) result = max(result, load_or_lowest(x, i, width));
  return maximum(result);
}

float row_sum_exp(const float* x, float largest, int64_t width) {
  F16 total = zero();
  for (int64_t i = 0; i < width; i += 16) total = total + exp(load_or_lowest(x, i, width) - splat(largest));
  return sum(total);
}

void softmax_gradient(float* x, float largest, float total, float factor, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) {
    const F16 p = exp(load_at(x, i, width) - splat(largest)) / splat(total);
    store_at(x, p * splat(factor), i, width);
  }
}

void softmax(const float* x, float* y, int64_t width) {
  const float largest = row_max(x, width);
  const F16 total = splat(row_sum_exp(x, largest, width));
  for (int64_t i = 0; i < width; i += 16)
    store_at(y, exp(load_at(x, i, width) - splat(largest)) / total, i, width);
}

void adamw(const AdamWStep& o, const Source& gradient, float* master, float* m, float* v, int64_t width) {
  const F16 beta1 = splat(o.beta1), beta2 = splat(o.beta2), one = splat(1.0f);
  for (int64_t i = 0; i < width; i += 16) {
    const F16 g = load_at(gradient, i, width) * splat(o.gradient_scale);
    const F16 first = fma(beta1, load_at(m, i, width), (one - beta1) * g);
    const F16 second = fma(beta2, load_at(v, i, width), (one - beta2) * g * g);
    const F16 root = fma(sqrt(second), splat(o.root_correction), splat(o.epsilon));
    const F16 decayed = load_at(master, i, width) * splat(o.decay);
    store_at(m, first, i, width);
    store_at(v, second, i, width);
    store_at(master, decayed - splat(o.step_size) * (first / root), i, width);
  }
}
