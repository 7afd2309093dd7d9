// A tile of query rows on its way over blocks of keys, shared by attention over a sequence and over paged KV:
// both give the same bits to the same keys at the same positions.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/scratch.h"
#include "kernels/table.h"

namespace tessera::kernels {

// Rows in float32 are padded with zeros to whole registers.
inline int64_t padded(int64_t width) {
  return (width + kLanes - 1) / kLanes * kLanes;
}
void widen_row(const Source& from, int64_t width, float* to);

// Own logarithm from + * / of doubles (error below 1e-15 relative to 1): the same bits with any C library.
double natural_log(double x);

class QueryTile {
 public:
  QueryTile(int64_t rows, int64_t head_dim);

  // Row r sees keys [begin, end), counted in absolute positions.
  void set_row(int64_t r, const Source& q, int64_t begin, int64_t end);
  int64_t first() const { return first_; }  // smallest begin
  int64_t last() const { return last_; }    // largest end

  // Blocks in ascending order, first_key a multiple of kKeyBlock. keys_transposed: panels [head_dim][16];
  // values: rows of padded(head_dim).
  void attend(int64_t first_key, int64_t keys, const float* keys_transposed, const float* values, float scale);

  // Writes the row's result, returns the log of its sum of exponentials.
  float finish_row(int64_t r, const Target& out) const;

 private:
  int64_t rows_, head_dim_, width_;
  Scratch q_, scores_, out_, max_, sum_;
  std::vector<int32_t> begin_, end_;
  int64_t first_ = INT64_MAX, last_ = 0;
};

}  // namespace tessera::kernels
