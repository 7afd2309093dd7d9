#include "kernels/reference.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <vector>

namespace tessera::kernels::reference {
namespace {

Tensor wide(const Tensor& tensor) {
  return tensor.to(at::kDouble).contiguous();
}
double* data(const Tensor& tensor) {
  return tensor.data_ptr<double>();
}
Tensor zeros(at::IntArrayRef sizes) {
  return at::zeros(sizes, at::kDouble);
}

float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
// Half of the instruction VDPBF16PS: subnormal numbers are zeros, in and out.
float flushed_fma(float a, float b, float c) {
  return flushed(std::fma(flushed(a), flushed(b), flushed(c)));
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

Tensor product(const Tensor& a_MK, const Tensor& b_KN, const Tensor& start) {
  const bool pairs = a_MK.scalar_type() == at::kBFloat16;
  const Tensor a = a_MK.to(at::kFloat).contiguous(), b = b_KN.to(at::kFloat).contiguous();
  const int64_t rows = a.size(0), depth = a.size(1), columns = b.size(1);
  Tensor out = start.defined() ? start.clone() : at::zeros({rows, columns}, at::kFloat);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < columns; ++n) {
      const float* left = a.data_ptr<float>() + m * depth;
      const float* right = b.data_ptr<float>() + n;
      float& sum = out.data_ptr<float>()[m * columns + n];
      for (int64_t k = 0; k < depth; k += pairs ? 2 : 1) {
        if (!pairs) {
          sum = std::fma(left[k], right[k * columns], sum);
          continue;
        }
        const bool whole = k + 1 < depth;
        sum = flushed_fma(whole ? left[k + 1] : 0.0f, whole ? right[(k + 1) * columns] : 0.0f, sum);
        sum = flushed_fma(left[k], right[k * columns], sum);
      }
    }
  return out;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const Tensor from = wide(x), scale = wide(weight), result = zeros(x.sizes());
  const int64_t width = weight.numel(), rows = width == 0 ? 0 : x.numel() / width;
  for (int64_t row = 0; row < rows; ++row) {
    const double* v = data(from) + row * width;
    double square = 0;
    for (int64_t i = 0; i < width; ++i) square += v[i] * v[i];
    const double rstd = 1 / std::sqrt(square / static_cast<double>(width) + eps);
    for (int64_t i = 0; i < width; ++i) data(result)[row * width + i] = v[i] * rstd * data(scale)[i];
  }
  return result;
}

NormGradient rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, double eps) {
  const Tensor from = wide(x), scale = wide(weight), gradient = wide(dy);
  NormGradient result{zeros(x.sizes()), zeros(weight.sizes())};
  const int64_t width = weight.numel(), rows = x.numel() / width;
  for (int64_t row = 0; row < rows; ++row) {
    const double *v = data(from) + row * width, *d = data(gradient) + row * width;
    double square = 0, inner = 0;
    for (int64_t i = 0; i < width; ++i) {
      square += v[i] * v[i];
      inner += d[i] * data(scale)[i] * v[i];
    }
    const double rstd = 1 / std::sqrt(square / static_cast<double>(width) + eps);
    for (int64_t i = 0; i < width; ++i) {
      data(result.dweight)[i] += d[i] * v[i] * rstd;
      data(result.dx)[row * width + i] =
          rstd * d[i] * data(scale)[i] - rstd * rstd * rstd * v[i] * inner / static_cast<double>(width);
    }
  }
  return result;
}

Tensor rope(const Tensor& x_THE, const Tensor& positions, const Tensor& cos, const Tensor& sin, bool inverse) {
  const Tensor result = wide(x_THE).clone(), c = wide(cos), s = wide(sin);
  const int64_t tokens = x_THE.size(0), heads = x_THE.size(1), width = x_THE.size(2), half = width / 2;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < half; ++i) {
        double* x = data(result) + (t * heads + h) * width;
        const int64_t at = positions.data_ptr<int64_t>()[t] * half + i;
        const double a = x[i], b = x[i + half], angle_sin = inverse ? -data(s)[at] : data(s)[at];
        x[i] = a * data(c)[at] - b * angle_sin;
        x[i + half] = b * data(c)[at] + a * angle_sin;
      }
  return result;
}

Tensor silu_mul(const Tensor& gate_up) {
  const int64_t tokens = gate_up.size(0), width = gate_up.size(1) / 2;
  const Tensor from = wide(gate_up), result = zeros({tokens, width});
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < width; ++i) {
      const double gate = data(from)[t * 2 * width + i], up = data(from)[t * 2 * width + width + i];
      data(result)[t * width + i] = gate * sigmoid(gate) * up;
    }
  return result;
}

Tensor silu_mul_backward(const Tensor& dout, const Tensor& gate_up) {
  const int64_t tokens = gate_up.size(0), width = gate_up.size(1) / 2;
  const Tensor from = wide(gate_up), gradient = wide(dout), result = zeros(gate_up.sizes());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = t * 2 * width + i;
      const double gate = data(from)[at], up = data(from)[at + width], d = data(gradient)[t * width + i];
      const double s = sigmoid(gate);
      data(result)[at] = d * up * (s + gate * s * (1 - s));
      data(result)[at + width] = d * gate * s;
    }
  return result;
}

namespace {

// Softmax weights of one token and head over its visible keys, and their log-sum-exp.
struct Weights {
  std::vector<double> p;
  double lse = 0;
};
struct HeadView {
  const double *q, *k, *v;  // of this token and head; of key 0 of its kv head
  int64_t width, key_stride, begin, end;
};

HeadView head_view(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, int64_t t,
                   int64_t h) {
  const int64_t heads = q.size(1), kv_heads = k.size(1), width = q.size(2), kv = h / (heads / kv_heads);
  return {data(q) + (t * heads + h) * width,
          data(k) + kv * width,
          data(v) + kv * width,
          width,
          kv_heads * width,
          start.data_ptr<int32_t>()[t],
          t + 1};
}

double dot(const double* a, const double* b, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

Weights weights(const HeadView& view, double scale) {
  Weights result;
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t j = view.begin; j < view.end; ++j) {
    result.p.push_back(dot(view.q, view.k + j * view.key_stride, view.width) * scale);
    max = std::max(max, result.p.back());
  }
  for (double& p : result.p) sum += p = std::exp(p - max);
  for (double& p : result.p) p /= sum;
  result.lse = max + std::log(sum);
  return result;
}

}  // namespace

Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& start, double scale) {
  const Tensor query = wide(q), key = wide(k), value = wide(v);
  const int64_t tokens = q.size(0), heads = q.size(1);
  Attention result{zeros(q.sizes()), zeros({tokens, heads})};
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const HeadView view = head_view(query, key, value, start, t, h);
      const Weights w = weights(view, scale);
      double* out = data(result.out) + (t * heads + h) * view.width;
      for (int64_t j = view.begin; j < view.end; ++j)
        for (int64_t i = 0; i < view.width; ++i)
          out[i] += w.p[static_cast<size_t>(j - view.begin)] * view.v[j * view.key_stride + i];
      data(result.lse)[t * heads + h] = w.lse;
    }
  return result;
}

AttentionGradient attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& start, double scale) {
  const Tensor query = wide(q), key = wide(k), value = wide(v), gradient = wide(dout);
  AttentionGradient result{zeros(q.sizes()), zeros(k.sizes()), zeros(v.sizes())};
  const int64_t tokens = q.size(0), heads = q.size(1);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const HeadView view = head_view(query, key, value, start, t, h);
      const Weights w = weights(view, scale);
      const double* d = data(gradient) + (t * heads + h) * view.width;
      const int64_t kv = view.k - data(key);
      double* dq = data(result.dq) + (t * heads + h) * view.width;
      double mean = 0;
      for (int64_t j = view.begin; j < view.end; ++j)
        mean += w.p[static_cast<size_t>(j - view.begin)] * dot(d, view.v + j * view.key_stride, view.width);
      for (int64_t j = view.begin; j < view.end; ++j) {
        const double p = w.p[static_cast<size_t>(j - view.begin)];
        const double ds = p * (dot(d, view.v + j * view.key_stride, view.width) - mean) * scale;
        for (int64_t i = 0; i < view.width; ++i) {
          dq[i] += ds * view.k[j * view.key_stride + i];
          data(result.dk)[kv + j * view.key_stride + i] += ds * view.q[i];
          data(result.dv)[kv + j * view.key_stride + i] += p * d[i];
        }
      }
    }
  return result;
}

Tensor embedding(const Tensor& weight, const Tensor& tokens, int64_t first) {
  const Tensor from = wide(weight), result = zeros({tokens.size(0), weight.size(1)});
  for (int64_t t = 0; t < tokens.size(0); ++t) {
    const int64_t row = tokens.data_ptr<int64_t>()[t] - first;
    for (int64_t i = 0; row >= 0 && row < weight.size(0) && i < weight.size(1); ++i)
      data(result)[t * weight.size(1) + i] = data(from)[row * weight.size(1) + i];
  }
  return result;
}

Tensor embedding_backward(const Tensor& dout, const Tensor& tokens, int64_t first, int64_t rows) {
  const Tensor from = wide(dout), result = zeros({rows, dout.size(1)});
  for (int64_t t = 0; t < tokens.size(0); ++t) {
    const int64_t row = tokens.data_ptr<int64_t>()[t] - first;
    for (int64_t i = 0; row >= 0 && row < rows && i < dout.size(1); ++i)
      data(result)[row * dout.size(1) + i] += data(from)[t * dout.size(1) + i];
  }
  return result;
}

Tensor softmax(const Tensor& logits_TX) {
  const Tensor result = wide(logits_TX).clone();
  const int64_t width = logits_TX.size(1);
  for (int64_t t = 0; t < logits_TX.size(0); ++t) {
    double* row = data(result) + t * width;
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t i = 0; i < width; ++i) max = std::max(max, row[i]);
    for (int64_t i = 0; i < width; ++i) sum += row[i] = std::exp(row[i] - max);
    for (int64_t i = 0; i < width; ++i) row[i] /= sum;
  }
  return result;
}

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& scale) {
  CrossEntropy result{zeros({logits.size(0)}), softmax(logits)};
  const Tensor factor = wide(scale);
  const int64_t width = logits.size(1);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    double* row = data(result.gradient) + t * width;
    const int64_t target = targets.data_ptr<int64_t>()[t];
    data(result.loss)[t] = -std::log(row[target]);
    row[target] -= 1;
    for (int64_t i = 0; i < width; ++i) row[i] *= data(factor)[t];
  }
  return result;
}

AdamWState adamw(double learning_rate, double beta1, double beta2, double epsilon, double weight_decay,
                 int64_t step, const Tensor& gradient, const AdamWState& state) {
  const Tensor g = wide(gradient);
  AdamWState result{wide(state.master).clone(), wide(state.m).clone(), wide(state.v).clone()};
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(step));
  for (int64_t i = 0; i < g.numel(); ++i) {
    double &weight = data(result.master)[i], &m = data(result.m)[i], &v = data(result.v)[i];
    m = beta1 * m + (1 - beta1) * data(g)[i];
    v = beta2 * v + (1 - beta2) * data(g)[i] * data(g)[i];
    weight -= learning_rate * weight_decay * weight;
    weight -= learning_rate * (m / correction1) / (std::sqrt(v / correction2) + epsilon);
  }
  return result;
}

}  // namespace tessera::kernels::reference
