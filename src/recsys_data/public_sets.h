// Public data sets by name: what is in their columns, and how they are split.
//
//   Adult (census income, Becker and Kohavi 1996): adult.data for training, adult.test for the test; 6 numbers,
//     standardised over the training rows, and 8 categories. With or without a header line.
//   Open Bandit (ZOZO, Saito et al. 2020): one CSV of impressions with the table of its items beside it
//     (NAME_items.csv, or item_context.csv); label: click. Split by time: the last share is the test.
#pragma once

#include <filesystem>

#include "recsys_data/table.h"

namespace tessera::recsys_data {

struct TrainTest {
  std::shared_ptr<const Table> train, test;
};
Result<TrainTest> read_adult(const std::filesystem::path& folder);

// All rows in order of time. Numbers: those of the item. Slots: item, position, 4 of the user, 3 of the item,
// and the items that the user has an affinity to (multi-hot).
Result<Table> read_open_bandit(const std::filesystem::path& file);

}  // namespace tessera::recsys_data
