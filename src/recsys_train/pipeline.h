// Four stages that overlap, each on its own thread and each in the order of the batches: load, look up, compute
// (on the caller's thread), update. A failing stage ends all of them, and its error is the result.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "recsys_train/queue.h"

namespace tessera::recsys_train {

template <class Work>
struct PipelineStages {
  std::function<Result<bool>(Work&)> load;  // false: no more
  std::function<Status(Work&)> look_up;
  std::function<Status(Work&, double wait_s)> compute;  // wait_s: seconds this stage was idle before
  std::function<Status(Work&)> update;
  std::function<void(const Error&)> abort;  // ends waits inside the stages
};

// `prefetch` batches may wait for their look-up, one for the computation: what is looked up earlier than that
// is older when it is used, and no faster. `outstanding` more may be between look-up and update.
template <class Work>
Status run_pipeline(const PipelineStages<Work>& stages, int64_t prefetch, int64_t outstanding) {
  using Item = std::unique_ptr<Work>;
  const auto depth = static_cast<size_t>(prefetch < 1 ? 1 : prefetch);
  const size_t items = depth + static_cast<size_t>(outstanding) + 5;
  Queue<Item> idle(items), loaded(depth), ready(1), done(items);
  for (size_t i = 0; i < items; ++i) idle.push(std::make_unique<Work>());

  std::mutex mutex;
  std::optional<Error> first;
  auto fail = [&](const Error& error) {
    {
      std::lock_guard lock(mutex);
      if (first) return;
      first = error;
    }
    for (auto* queue : {&idle, &loaded, &ready, &done}) queue->abort();
    stages.abort(error);
  };
  // Exceptions must not leave a thread.
  auto guarded = [&](auto&& body) {
    try {
      if (Status status = body(); !status.ok()) fail(status.error());
    } catch (const std::exception& exception) {
      fail(make_error(ErrorCode::internal, "{}", exception.what()));
    }
  };

  std::thread loader([&] {
    guarded([&]() -> Status {
      while (auto item = idle.pop()) {
        TESSERA_ASSIGN_OR_RETURN(bool more, stages.load(**item));
        if (!more || !loaded.push(std::move(*item))) break;
      }
      return {};
    });
    loaded.close();
  });
  std::thread looker([&] {
    guarded([&]() -> Status {
      while (auto item = loaded.pop()) {
        TESSERA_RETURN_IF_ERROR(stages.look_up(**item));
        if (!ready.push(std::move(*item))) break;
      }
      return {};
    });
    ready.close();
  });
  std::thread updater([&] {
    guarded([&]() -> Status {
      while (auto item = done.pop()) {
        TESSERA_RETURN_IF_ERROR(stages.update(**item));
        idle.push(std::move(*item));
      }
      return {};
    });
  });
  guarded([&]() -> Status {
    for (;;) {
      auto start = Clock::now();
      auto item = ready.pop();
      if (!item) return {};
      TESSERA_RETURN_IF_ERROR(stages.compute(**item, seconds_since(start)));
      done.push(std::move(*item));
    }
  });
  done.close();
  loader.join();
  looker.join();
  updater.join();
  if (first) return *first;
  return {};
}

}  // namespace tessera::recsys_train
