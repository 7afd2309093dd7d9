// Loops over the pairs of a row's vectors. kLanes: floats of a register of the level.

typedef float Lanes __attribute__((vector_size(4 * kLanes), aligned(4)));

inline Lanes load(const float* from) {
  return *reinterpret_cast<const Lanes*>(from);
}
inline void store(Lanes values, float* to) {
  *reinterpret_cast<Lanes*>(to) = values;
}
inline Lanes all(float value) {
  return value - Lanes{};
}
// Contracted to one instruction (-ffp-contract=fast).
inline Lanes add_product(Lanes a, Lanes b, Lanes sum) {
  return a * b + sum;
}

constexpr int64_t kMostVectors = 128;
constexpr int64_t kMostDim = 256;

inline const float* vector_of(const DotRows& rows, int64_t row, int64_t i) {
  return i == 0 ? rows.first + row * rows.first_stride : rows.vectors + (row * rows.others + i - 1) * rows.dim;
}

// Products of one vector with those before it, a register of them at a time: lane j of `turned` row d is
// element d of vector j.
void forward(const DotRows& rows, float* out, int64_t out_stride) {
  alignas(64) static thread_local float turned[kMostDim * kMostVectors];
  alignas(64) float line[kMostVectors + kLanes];
  const int64_t count = rows.others + 1;
  for (int64_t row = 0; row < rows.rows; ++row, out += out_stride) {
    for (int64_t i = 0; i < count; ++i) {
      const float* v = vector_of(rows, row, i);
      for (int64_t d = 0; d < rows.dim; ++d) turned[d * kMostVectors + i] = v[d];
    }
    float* to = out;
    for (int64_t i = 1; i < count; ++i) {
      const float* v = vector_of(rows, row, i);
      for (int64_t j = 0; j < i; j += 2 * kLanes) {
        Lanes sum0 = {}, sum1 = {};
        const float* column = turned + j;
        for (int64_t d = 0; d < rows.dim; ++d, column += kMostVectors) {
          const Lanes x = all(v[d]);
          sum0 = add_product(x, load(column), sum0);
          sum1 = add_product(x, load(column + kLanes), sum1);
        }
        store(sum0, line + j);
        store(sum1, line + j + kLanes);
      }
      for (int64_t j = 0; j < i; ++j) to[j] = line[j];
      to += i;
    }
  }
}

// left[i] = sum over j < i of g(i, j) v[j]; right[j] = sum over i > j of g(i, j) v[i]; their sum goes out.
void backward(const DotRows& rows, const float* gradient, int64_t gradient_stride, float* to_first,
              float* to_vectors) {
  const int64_t count = rows.others + 1;
  for (int64_t row = 0; row < rows.rows; ++row, gradient += gradient_stride) {
    for (int64_t i = 0; i < count; ++i) {
      float* to = i == 0 ? to_first + row * rows.dim : to_vectors + (row * rows.others + i - 1) * rows.dim;
      const float* mine = gradient + i * (i - 1) / 2;
      for (int64_t d = 0; d < rows.dim; d += kLanes) {
        Lanes left = {}, right = {};
        for (int64_t j = 0; j < i; ++j)
          left = add_product(all(mine[j]), load(vector_of(rows, row, j) + d), left);
        for (int64_t k = i + 1; k < count; ++k)
          right = add_product(load(vector_of(rows, row, k) + d), all(gradient[k * (k - 1) / 2 + i]), right);
        store(left + right, to + d);
      }
    }
  }
}
