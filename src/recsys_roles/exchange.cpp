#include "recsys_roles/exchange.h"

#include <algorithm>

namespace tessera::recsys_roles {
namespace {

constexpr size_t kSteps = 2;
constexpr double kWait_s = 300;  // for the gradients of a trainer that is there

}  // namespace

std::string trainer_role(int64_t rank) {
  return fmt::format("trainer:{}", rank);
}

void GradientShelf::show(int64_t step, std::vector<float> gradients) {
  std::lock_guard lock(mutex_);
  steps_[step] = std::move(gradients);
  while (steps_.size() > kSteps) steps_.erase(steps_.begin());
  changed_.notify_all();
}

Result<std::vector<float>> GradientShelf::take(int64_t step, Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, deadline.at, [&] { return steps_.contains(step); }))
    return make_error(ErrorCode::deadline_exceeded, "the gradients of step {} did not come; the last is {}",
                      step, steps_.empty() ? -1 : steps_.rbegin()->first);
  return steps_[step];
}

Door::Handler serve_gradients(GradientShelf& shelf) {
  return [&shelf](MessageReader& request) -> Result<Message> {
    auto step = request.value<int64_t>();
    TESSERA_RETURN_IF_ERROR(request.end());
    TESSERA_ASSIGN_OR_RETURN(auto gradients, shelf.take(step, Deadline::after(kWait_s)));
    return MessageWriter().array(gradients).take();
  };
}

recsys_train::GradientExchange exchange_by_pull(const Meeting& meeting, GradientShelf& shelf, int64_t rank,
                                                int64_t trainers) {
  std::vector<std::shared_ptr<Caller>> callers;
  for (int64_t other = 0; other < trainers; ++other)
    callers.push_back(std::make_shared<Caller>(meeting, trainer_role(other)));
  return [callers, &shelf, rank](int64_t step, std::span<float> all) -> Status {
    const size_t mine = all.size() / callers.size(), me = static_cast<size_t>(rank);
    auto own = all.subspan(mine * me, mine);
    shelf.show(step, {own.begin(), own.end()});
    std::vector<std::optional<Caller::Pending>> pending(callers.size());
    for (size_t other = 0; other < callers.size(); ++other)
      if (other != me) pending[other] = callers[other]->start(MessageWriter().value(step).take());
    Status first;
    for (size_t other = 0; other < callers.size(); ++other) {
      if (!pending[other]) continue;
      auto bytes = callers[other]->finish(std::move(*pending[other]));
      Status status = bytes ? Status() : Status(bytes.error());
      if (bytes) {
        MessageReader reader(*bytes);
        reader.array_into(all.subspan(mine * other, mine));
        status = reader.end();
      }
      if (first.ok() && !status.ok()) first = status.error().within(callers[other]->role());
    }
    return first;
  };
}

}  // namespace tessera::recsys_roles
