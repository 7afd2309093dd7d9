// Saves by all ranks of a layout, as threads, for this part's tests.
#pragma once

#include <functional>
#include <thread>

#include "checkpoint/testing_pieces.h"
#include "checkpoint/writer.h"

namespace tessera::checkpoint::testing {

// Every rank's outcome. The values saved are those of version `record.step`; `change` may spoil a rank's
// pieces.
inline std::vector<Result<SaveReport>> save_as_ranks(
    WriterOptions options, const TrainingRecord& record,
    const std::function<void(int64_t, std::vector<Piece>&)>& change = nullptr) {
  options.timeout_s = 30;
  int64_t ranks = record.layout.processes();
  auto groups = make_thread_groups(ranks);
  std::vector<Result<SaveReport>> reports(static_cast<size_t>(ranks), Result<SaveReport>(Error{}));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      auto slot = static_cast<size_t>(rank);
      CheckpointWriter writer(options, std::move(groups[slot]));
      auto pieces = pieces_of_rank(options.model, record.work, record.layout, rank, record.step);
      if (change) change(rank, pieces);
      Status started = writer.start(record, pieces);
      if (started.ok())
        reports[slot] = writer.wait();
      else
        reports[slot] = started.error();
    });
  for (std::thread& thread : threads) thread.join();
  return reports;
}

}  // namespace tessera::checkpoint::testing
