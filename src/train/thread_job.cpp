#include "train/thread_job.h"

#include <algorithm>
#include <optional>
#include <thread>

namespace tessera::train {

Result<std::unique_ptr<Group>> ThreadJob::group(const std::string& name, const std::vector<int64_t>& members,
                                                int64_t rank) {
  std::lock_guard lock(mutex_);
  auto& groups = waiting_[name];
  if (groups.empty()) groups = make_thread_groups(static_cast<int64_t>(members.size()));
  auto place = std::find(members.begin(), members.end(), rank) - members.begin();
  return std::move(groups[static_cast<size_t>(place)]);
}

Status ThreadJob::run(const std::function<Status(int64_t)>& body) {
  std::optional<Error> first;
  std::mutex error_mutex;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks(); ++rank)
    threads.emplace_back([&, rank] {
      Status status = body(rank);
      if (status.ok()) return;
      std::lock_guard lock(error_mutex);
      if (first) return;
      first = status.error();
      for (auto& trainer : trainers_)
        if (trainer) trainer->abort(make_error(ErrorCode::aborted, "another rank failed: {}", first->message));
    });
  for (std::thread& thread : threads) thread.join();
  if (first) return *first;
  return {};
}

Result<std::unique_ptr<ThreadJob>> ThreadJob::create(TrainerOptions options) {
  TESSERA_RETURN_IF_ERROR(validate(options.model, options.work, options.layout));
  auto job = std::make_unique<ThreadJob>();
  job->trainers_.resize(static_cast<size_t>(options.layout.processes()));
  Status status = job->run([&](int64_t rank) -> Status {
    TrainerOptions mine = options;
    mine.rank = rank;
    mine.make_group = [&job, rank](const std::string& name, const std::vector<int64_t>& members) {
      return job->group(name, members, rank);
    };
    TESSERA_ASSIGN_OR_RETURN(job->trainers_[static_cast<size_t>(rank)], Trainer::create(std::move(mine)));
    return {};
  });
  if (!status.ok()) return status.error();
  return job;
}

Status ThreadJob::on_all(const std::function<Status(Trainer&, int64_t)>& body) {
  return run([&](int64_t rank) { return body(this->rank(rank), rank); });
}

}  // namespace tessera::train
