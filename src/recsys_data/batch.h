// What recommender training reads: rows of one label, some numbers and some sets of 64-bit ids, taken in
// batches.
//
// A slot is one categorical feature. Its ids are unique within the slot only; 0 stands for "missing" where a
// data set has missing values. Slots with exactly one id in every row (one-hot) keep no offsets.
//
// Shapes: B rows, N numbers of a row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::recsys_data {

struct Features {
  std::vector<std::string> numeric;  // names of the N numbers
  std::vector<std::string> slots;
};

// Ids of one slot for B rows: row i has ids[offsets[i] .. offsets[i + 1]), or ids[i] when offsets are empty.
struct SlotIds {
  std::vector<uint64_t> ids;
  std::vector<int64_t> offsets;  // B + 1, or empty

  std::span<const uint64_t> row(int64_t i) const {
    auto at = static_cast<size_t>(i);
    if (offsets.empty()) return {ids.data() + at, 1};
    return {ids.data() + offsets[at], static_cast<size_t>(offsets[at + 1] - offsets[at])};
  }
};

struct Batch {
  int64_t rows = 0;
  int64_t number = 0;          // of this batch within its epoch, from 0; set by who hands batches out
  std::vector<float> labels;   // [B], 0 or 1
  std::vector<float> numeric;  // [B, N]
  std::vector<SlotIds> slots;  // one for each of Features::slots
};

// A stream of rows in a fixed order. Threads: one.
class Source {
 public:
  virtual ~Source() = default;
  virtual const Features& features() const = 0;
  // Rows of one epoch where that is known beforehand, else 0.
  virtual int64_t rows() const = 0;
  // Goes to the first row of an epoch. Sources that shuffle do so by (seed, epoch).
  virtual Status start_epoch(int64_t epoch) = 0;
  // Fills `batch` with the next rows, at most `max_rows`; no rows at the end of the epoch.
  // Errors: malformed data, as "FILE:LINE: column NAME: got ..., expected ...".
  virtual Status next(int64_t max_rows, Batch& batch) = 0;
  // Passes over the next rows, or to the end of the epoch. Reads them, where a source knows no shorter way.
  virtual Status skip(int64_t rows) {
    Batch passed;
    for (; rows > 0; rows -= passed.rows) {
      TESSERA_RETURN_IF_ERROR(next(rows < 4096 ? rows : 4096, passed));
      if (passed.rows == 0) break;
    }
    return {};
  }
};

}  // namespace tessera::recsys_data
