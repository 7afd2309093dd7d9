// What an embedding worker and its servers say to each other, in few bytes (recsys/wire.h): ids sorted,
// distinct and packed; rows and gradients in few bits. This is the worker's end; a server's is unpack and pack
// again.
//
//   get    ids -> rows         put    ids, gradients (with memory of what rounding took, where asked for)
//
// What rounding took is remembered by the process that sends: when it is killed, at most one rounding error of
// each id is lost.
// Threads: any.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "recsys/wire.h"

namespace tessera::recsys {

struct WireConfig {
  bool on = false;  // else ids as 8 bytes and values as float32
  RowType rows = RowType::f32, gradients = RowType::f32;
  bool error_feedback = true;     // for gradients in few bits
  RowType pooled = RowType::f32;  // pooled rows and their gradients, between worker and trainer
};

// Bytes both ways, and those of the same ids as 8 bytes with values as float32.
struct WireCount {
  int64_t bytes = 0, raw_bytes = 0;
};

class WireEnd {
 public:
  using Bytes = std::vector<std::byte>;
  // `dims`: of each group.
  WireEnd(const WireConfig& config, const std::vector<int64_t>& dims);

  // Appends a request for rows; the ids tell take() where the rows belong.
  SortedIds ask(std::span<const uint64_t> ids, Bytes& request);
  // Rows of all ids that were asked for. Errors: data_loss.
  Status take(int64_t group, const SortedIds& ids, std::span<const std::byte> answer, std::span<float> rows);
  // Appends gradients and their ids. An id that comes twice is updated twice, so it must not be merged: false,
  // and nothing is appended.
  bool give(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients, Bytes& request);

  RowType row_type() const { return config_.rows; }
  WireCount count() const { return {bytes_, raw_bytes_}; }

 private:
  struct Group {
    explicit Group(int64_t dim_of_rows) : dim(static_cast<size_t>(dim_of_rows)), feedback(dim_of_rows) {}
    size_t dim;
    std::mutex mutex;
    ErrorFeedback feedback;
  };
  void count(size_t packed, size_t ids, size_t floats);

  WireConfig config_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::atomic<int64_t> bytes_{0}, raw_bytes_{0};
};

}  // namespace tessera::recsys
