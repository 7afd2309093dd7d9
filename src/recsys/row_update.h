// One record: the bytes of a row with its optimizer state, as they lie in memory, in snapshots and on disk.
//
//   0               u64 id
//   8               u32 per policy word (see policy.h)
//   values_offset   the values: dim elements, or for i8 a float32 scale and dim bytes; padded to 4 bytes
//   state_offset    float32s of the optimizer:
//                     sgd           momentum[dim], absent when momentum = 0
//                     adagrad       sum[dim]
//                     adagrad_row   sum
//                     adam, adamw   first[dim], second[dim], u32 updates so far
//                     ftrl          z[dim], n[dim]
//                     lamb_row      first[dim], second, u32 updates so far
//
// Threads: RowUpdate is immutable; one record must not be used by two threads at once.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "recsys/options.h"
#include "recsys/row_kernels.h"

namespace tessera::recsys {

struct PutOptions;

struct RecordLayout {
  explicit RecordLayout(const GroupOptions& group);
  int64_t values_offset, state_offset, bytes;
};

inline uint64_t id_of(const std::byte* record) {
  uint64_t id;
  std::memcpy(&id, record, sizeof id);
  return id;
}

class RowUpdate {
 public:
  // `kernels` null: those of this processor.
  explicit RowUpdate(const GroupOptions& group, const RowKernels* kernels = nullptr);
  const RecordLayout& layout() const { return layout_; }

  void create(uint64_t id, std::byte* record) const;      // id, zero policy words, initial values, fresh state
  void initial_values(uint64_t id, float* values) const;  // as read() gives them after create()
  void read(const std::byte* record, float* values) const {
    const std::byte* row = record + layout_.values_offset;
    // A call would cost as much as the copy of a short row.
    if (copied_floats_ == 16) {
      std::memcpy(values, row, 64);
    } else if (copied_floats_ != 0) {
      std::memcpy(values, row, sizeof(float) * copied_floats_);
    } else {
      kernels_->load[type_](row, group_.dim, values);
    }
  }
  void write(std::byte* record, const float* values) const;  // nearest rounding; the state becomes fresh
  // The constants of all updates of one put.
  RowStep step_of(const PutOptions& options) const;
  // False, and nothing changed, when the gradient is not finite. `number` of the put seeds stochastic rounding.
  bool update(std::byte* record, const float* gradient, const RowStep& step, uint64_t number) const;
  float norm_squared(const std::byte* record) const;

 private:
  RowStep constants() const;
  RowStep corrected(RowStep step, uint32_t updates) const;
  void fresh_state(std::byte* record) const;
  void raw_initial(uint64_t id, float* values) const;

  GroupOptions group_;
  RecordLayout layout_;
  const RowKernels* kernels_;
  size_t type_;
  size_t copied_floats_;  // rows of float32 are copied as they are
  bool counts_updates_;
  RowStep base_;
};

}  // namespace tessera::recsys
