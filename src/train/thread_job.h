// All ranks of a layout as threads of this process: how verify, tests and small comparisons run a job without
// processes.
#pragma once

#include <map>
#include <mutex>

#include "train/trainer.h"

namespace tessera::train {

class ThreadJob {
 public:
  // Makes one trainer per rank of options.layout; options.rank and options.make_group are set here.
  static Result<std::unique_ptr<ThreadJob>> create(TrainerOptions options);

  // Runs body(trainer of a rank, rank) on every rank at once; the first error wins and aborts the others.
  Status on_all(const std::function<Status(Trainer&, int64_t)>& body);

  Trainer& rank(int64_t rank) { return *trainers_[static_cast<size_t>(rank)]; }
  int64_t ranks() const { return static_cast<int64_t>(trainers_.size()); }

 private:
  Result<std::unique_ptr<Group>> group(const std::string& name, const std::vector<int64_t>& members,
                                       int64_t rank);
  Status run(const std::function<Status(int64_t)>& body);

  std::mutex mutex_;
  std::map<std::string, std::vector<std::unique_ptr<Group>>>
      waiting_;  // groups whose other members have yet to come
  std::vector<std::unique_ptr<Trainer>> trainers_;
};

}  // namespace tessera::train
