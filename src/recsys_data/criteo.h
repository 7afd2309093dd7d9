// Criteo's click logs: one line per impression, separated by tabs: label (0 or 1), 13 integers, 26 hashed
// categories of eight hexadecimal digits; any of the last 39 may be empty. The Kaggle set (train.txt, 7 days)
// and the terabyte set (day_0 .. day_23) share this form; both are in order of time.
//
// Numbers: log(1 + x) of x > 0, else 0 (missing, 0 and negative values); as facebookresearch/dlrm does.
// Ids: 0 where the field is empty, else 1 + its 32 bits.
#pragma once

#include <filesystem>
#include <vector>

#include "recsys_data/batch.h"
#include "recsys_data/text_input.h"

namespace tessera::recsys_data {

constexpr int64_t kCriteoNumbers = 13, kCriteoSlots = 26;

struct CriteoPart {
  std::filesystem::path path;
  ByteRange range;
};

// The parts one after another. Nothing is read before start_epoch().
std::unique_ptr<Source> make_criteo_source(std::vector<CriteoPart> parts);

struct CriteoSplits {
  std::vector<CriteoPart> train, valid, test;
};

// Kaggle: one file; its last `test` share of bytes is held out, the `valid` share before it likewise.
Result<CriteoSplits> split_criteo_kaggle(const std::filesystem::path& file, double valid, double test);
// Terabyte: a folder with day_N or day_N.gz; the last day is held out, its first half for validation, as in
// MLPerf. With gzip files the last day is all for the test.
Result<CriteoSplits> split_criteo_terabyte(const std::filesystem::path& folder);

}  // namespace tessera::recsys_data
