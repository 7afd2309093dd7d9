// How many parameters a store on this machine can address, shown by doing it: ids are drawn from the whole
// address space, rows come into being at first touch, and every touched row is read back.
//
// Of each size of address space a fresh store takes the same work, so the rates show what the size costs. Row k
// of a store gets, through a put, bytes that are a function of its id: two ids on one row, a gradient on a
// wrong row or a lost one give other bytes, and count as errors.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "recsys/store.h"

namespace tessera::recsys {

struct CapacityOptions {
  double parameters = 100e12;  // addressed: ids x dim
  int64_t dim = 128;
  RowType row_type = RowType::i8;
  int64_t touched_rows = 2'000'000;  // of the largest address space, all read back
  int64_t measured_rows = 200'000;   // of each size, per round
  int64_t slots = 26;                // rows per sample
  int rounds = 12;                   // the best counts; sizes take turns, so that all see the same noise
  // Rows beyond so many bytes of memory go to `disk` and are read back from there; 0: all stay in memory.
  int64_t memory_bytes = 0;
  DiskOptions disk;
};

struct CapacityReport {
  double parameters = 0;
  int64_t ids = 0, dim = 0;
  double virtual_bytes = 0;  // of all ids, were they resident
  int64_t touched_rows = 0, resident_rows = 0, resident_bytes = 0, disk_bytes = 0;
  std::vector<double> sizes;          // parameters: a sixteenth to the whole
  std::vector<double> samples_per_s;  // at these sizes: get and put of `slots` rows per sample
  double flatness = 0;                // largest deviation from their mean, as a fraction
  int64_t readback_errors = 0;
};

// `progress(done, total)` in rows, may be null. Fails when memory, or the disk, does not hold the touched rows.
Result<CapacityReport> measure_capacity(const CapacityOptions& options,
                                        const std::function<void(int64_t, int64_t)>& progress = nullptr);

// "100T", "6.25T", "1e12", "128G", "5000000". Letters: K, M, G or B, T, P.
Result<double> parse_count(std::string_view text);

}  // namespace tessera::recsys
