// Batches by number, so that whoever needs one can ask for it, also a second time: a worker that came back to
// life, or a trainer that repeats its step. A batch is a function of (split, epoch, number, rows).
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "recsys_data/encoding.h"
#include "recsys_data/open.h"

namespace tessera::recsys_train {

enum class Split : uint8_t { train, test };

struct BatchKey {
  Split split = Split::train;
  int64_t epoch = 0;
  int64_t number = 0;  // within the epoch, from 0
  int64_t rows = 0;    // of every batch but the last
  int64_t last = 0;    // this batch counts only where batch `last` has rows too: rounds are whole
  int64_t step = 0;    // over all epochs
  int64_t part = 0;    // of the step
};

// What a run has to know about its data without reading it.
struct DataFacts {
  recsys_data::Features features;
  int64_t train_rows = 0;  // of an epoch; 0: not known
  bool has_test = false;
  double best_auc = 0;
  // How values become numbers and ids; none where the data does not say it.
  std::optional<recsys_data::FeatureEncodings> encodings;
};
DataFacts facts_of(const recsys_data::Splits& splits);

class BatchLoader {
 public:
  virtual ~BatchLoader() = default;
  // No rows: the epoch has no such round. Errors: those of the data, with file, line and column.
  virtual Status load(const BatchKey& key, recsys_data::Batch& out) = 0;
};

// Reads sources in this process. The last `keep` batches of a split can be had again at once; older ones, and
// jumps ahead, cost a skip from the start of the epoch. Threads: any.
class LocalLoader : public BatchLoader {
 public:
  // `splits` must outlive the loader.
  explicit LocalLoader(recsys_data::Splits& splits, int64_t keep) : splits_(splits), keep_(keep) {}
  Status load(const BatchKey& key, recsys_data::Batch& out) override;

 private:
  struct Stream {
    int64_t epoch = -1, rows = 0, next = 0;  // number of the batch that the source gives next
    bool ended = false;
    std::deque<recsys_data::Batch> kept;  // those before `next`
    recsys_data::Batch spare;             // its memory serves the next batch
  };
  Status go_to(recsys_data::Source& source, Stream& stream, const BatchKey& key);
  Status read_one(recsys_data::Source& source, Stream& stream);

  recsys_data::Splits& splits_;
  int64_t keep_;
  std::mutex mutex_;
  Stream streams_[2];
};

}  // namespace tessera::recsys_train
