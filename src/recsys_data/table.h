// A data set small enough to be held whole, handed out in file order, shuffled by (seed, epoch), or in part.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recsys_data/batch.h"
#include "recsys_data/encoding.h"

namespace tessera::recsys_data {

struct Table {
  Features features;
  FeatureEncodings encodings;
  Batch all;                      // every row
  std::vector<std::string> time;  // of each row when the data has a time column: text that sorts by time

  int64_t rows() const { return all.rows; }
};

// Rows of `from` in the order of `picks`.
void gather_rows(const Batch& from, std::span<const int64_t> picks, size_t num_numeric, Batch& into);

// Row numbers by time; equal times keep their order. REQUIRES: table.time holds one entry for each row.
std::vector<int64_t> order_by_time(const Table& table);

// Numbers shifted and scaled to mean 0 and deviation 1 over `fit`, rows of `table`; the same is done to
// `others`. A column that is constant there becomes 0.
void standardise(Table& table, std::span<const int64_t> fit, std::span<Table*> others = {});

struct TableOrder {
  std::vector<int64_t> picks;  // rows of the source; all of them when empty
  bool shuffle = false;        // anew in each epoch; a function of (seed, epoch)
  uint64_t seed = 0;
};
std::unique_ptr<Source> make_table_source(std::shared_ptr<const Table> table, TableOrder order);

}  // namespace tessera::recsys_data
