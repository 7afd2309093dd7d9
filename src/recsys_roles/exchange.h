// How dense trainers in processes of their own bring the gradients of a step together: each shows what it
// computed, for the last two steps, and takes what the others show. A trainer that died may be one step behind
// the others when it comes back, never more: they cannot finish a step without it.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>

#include "recsys_roles/link.h"
#include "recsys_train/trainer.h"

namespace tessera::recsys_roles {

std::string trainer_role(int64_t rank);  // "trainer:0"

// Threads: any.
class GradientShelf {
 public:
  void show(int64_t step, std::vector<float> gradients);
  // Waits until they are there.
  Result<std::vector<float>> take(int64_t step, Deadline deadline);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, std::vector<float>> steps_;
};

// Answers for `shelf`, which must outlive the door.
Door::Handler serve_gradients(GradientShelf& shelf);
// The exchange of trainer `rank` of `trainers`. `shelf` must outlive it.
recsys_train::GradientExchange exchange_by_pull(const Meeting& meeting, GradientShelf& shelf, int64_t rank,
                                                int64_t trainers);

}  // namespace tessera::recsys_roles
