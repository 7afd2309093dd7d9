// One vector for each text: sequences of several calls packed into steps, in the order they came, pooled over
// their hidden states after the last norm.
//
// Bits: a vector depends on its own tokens alone, not on the sequences beside it.
// Threads: submit(), cancel() and gauges() from any thread; steps and `done` on the engine's own.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "serve/model.h"

namespace tessera::serve {

// Of a sequence's tokens, those put around a text included: their mean, the first, or the last.
enum class Pooling { mean, cls, last };
Result<Pooling> parse_pooling(const std::string& text);

struct EmbeddingOptions {
  Pooling pooling = Pooling::mean;
  bool normalize = true;           // to length 1
  int64_t max_batch_tokens = 512;  // of one step; a longer sequence is a step of its own
  int64_t max_waiting = 4096;      // sequences that wait; more are refused
};

struct EmbeddingJob {
  std::vector<std::vector<int64_t>> sequences;  // none of them empty
  int64_t dimensions = 0;                       // the first so many elements, normalised anew; 0: all
  // Called once: a vector for each sequence, in order; or why there are none.
  std::function<void(Result<std::vector<std::vector<float>>>)> done;
};

struct EmbeddingGauges {
  int64_t waiting = 0, calls = 0, sequences = 0, tokens = 0, steps = 0;  // all but the first since the start
};

class EmbeddingEngine {
 public:
  // `model`, of one rank, must outlive the engine.
  static Result<std::unique_ptr<EmbeddingEngine>> start(const ServedModel& model,
                                                        const EmbeddingOptions& options);
  ~EmbeddingEngine();  // what waits ends with unavailable

  // The job's number. Errors: a sequence beyond the model's positions, or a token outside its vocabulary
  // (invalid_argument), too many that wait (resource_exhausted).
  Result<int64_t> submit(EmbeddingJob job);
  // Nothing more is computed for it, and `done` is not called, unless it is being called now.
  void cancel(int64_t id);
  int64_t max_length() const { return model_.spec().max_positions; }
  int64_t width() const { return model_.spec().hidden; }
  EmbeddingGauges gauges() const;

 private:
  struct Work;
  struct Entry {  // one sequence of a job
    std::shared_ptr<Work> work;
    size_t index;
  };

  EmbeddingEngine(const ServedModel& model, const EmbeddingOptions& options, KvCache cache)
      : model_(model), options_(options), cache_(std::move(cache)) {}
  void run();
  std::vector<Entry> next_step();
  Status check(const EmbeddingJob& job) const;
  StepBatch batch_of(const std::vector<Entry>& step) const;
  Status compute(const std::vector<Entry>& step);
  std::vector<float> pooled(const float* rows, int64_t count, int64_t dimensions) const;

  const ServedModel& model_;
  EmbeddingOptions options_;
  KvCache cache_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> queue_;
  EmbeddingGauges gauges_;
  int64_t next_id_ = 1;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tessera::serve
