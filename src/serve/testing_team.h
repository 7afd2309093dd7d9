// Ranks as threads of one process, and faults on demand: for tests.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "serve/engine.h"
#include "serve/prefill_worker.h"

namespace tessera::serve {

// A team that says it lost someone when told to.
class LosingTeam : public Team {
 public:
  void give_up() override {}
  std::optional<Error> loss() const override {
    std::lock_guard lock(mutex_);
    return loss_;
  }
  void on_loss(std::function<void()> callback) override {
    std::lock_guard lock(callback_mutex_);
    callback_ = std::move(callback);
  }
  int64_t num_losses() const override { return num_losses_; }

  // Rank 1 is gone.
  void lose() {
    {
      std::lock_guard lock(mutex_);
      loss_ = make_error(ErrorCode::unavailable, "rank 1 is gone");
      ++num_losses_;
      for (auto& group : groups_) group->abort(*loss_);
    }
    std::lock_guard lock(callback_mutex_);
    if (callback_) callback_();
  }

 protected:
  // All work on the groups of before has ended.
  void renew_groups(int64_t size) {
    std::lock_guard lock(mutex_);
    loss_.reset();
    groups_ = make_thread_groups(size);
  }

  std::vector<std::unique_ptr<Group>> groups_;

 private:
  mutable std::mutex mutex_, callback_mutex_;
  std::optional<Error> loss_;
  std::function<void()> callback_;
  std::atomic<int64_t> num_losses_ = 0;
};

// A prefill worker and the decoder's side of it.
class ThreadWorker : public LosingTeam {
 public:
  ThreadWorker(const std::filesystem::path& model, const batching::SchedulerOptions& scheduling)
      : scheduling_(scheduling),
        model_(ServedModel::load(model, {}, 0, {}).value()),
        runner_(StepRunner::make(model_, scheduling, {}).value()) {
    meet().ok();
  }
  ~ThreadWorker() override { end(); }

  RankGroups groups() override { return {.world = groups_[0].get()}; }
  Status meet() override {
    end();
    renew_groups(2);
    thread_ = std::thread([this] { (void)follow_decoder(runner_, scheduling_, *groups_[1]); });
    return {};
  }

 private:
  void end() {
    for (auto& group : groups_) group->abort(make_error(ErrorCode::aborted, "the worker ends"));
    if (thread_.joinable()) thread_.join();
  }

  batching::SchedulerOptions scheduling_;
  ServedModel model_;
  StepRunner runner_;
  std::thread thread_;
};

class ThreadTeam : public LosingTeam {
 public:
  // A step that computes `poison` fails.
  ThreadTeam(const std::filesystem::path& model, int64_t size, const batching::SchedulerOptions& scheduling,
             int64_t poison = -1)
      : poison_(poison) {
    for (int64_t rank = 0; rank < size; ++rank)
      models_.push_back(ServedModel::load(model, {.tp = size}, rank, {}).value());
    for (size_t rank = 1; rank < models_.size(); ++rank)
      runners_.push_back(StepRunner::make(models_[rank], scheduling, {}).value());
    meet().ok();
  }
  ~ThreadTeam() override { end_followers(); }

  ServedModel& model() { return models_[0]; }
  RankGroups groups() override { return view(0); }

  Status meet() override {
    end_followers();
    renew_groups(std::ssize(models_));
    for (size_t rank = 1; rank < models_.size(); ++rank)
      followers_.emplace_back([this, rank] { follow_until_poison(runners_[rank - 1], view(rank)); });
    return {};
  }

 private:
  void end_followers() {
    for (auto& group : groups_) group->abort(make_error(ErrorCode::aborted, "the team meets again"));
    for (auto& follower : followers_) follower.join();
    followers_.clear();
  }

  RankGroups view(size_t rank) const { return {.world = groups_[rank].get(), .tp = groups_[rank].get()}; }

  void follow_until_poison(StepRunner& runner, const RankGroups& groups) const {
    runner.connect(groups);
    Group& group = *groups.world;
    while (true) {
      auto followed = follow(group);
      if (!followed || followed->command == Command::stop) return;
      if (followed->command == Command::idle) continue;
      const auto& tokens = followed->batches[0].tokens;
      if (std::find(tokens.begin(), tokens.end(), poison_) != tokens.end())
        return group.abort(make_error(ErrorCode::unavailable, "rank 1 choked on token {}", poison_));
      auto moved = runner.move(followed->batches);
      if (moved && *moved) runner.forward(followed->batches).ok();
    }
  }

  int64_t poison_;
  std::vector<ServedModel> models_;
  std::vector<StepRunner> runners_;
  std::vector<std::thread> followers_;
};

// One request and all that comes of it.
class Reader {
 public:
  static std::shared_ptr<Reader> submit(Engine& engine, CompletionRequest request) {
    auto reader = std::make_shared<Reader>();
    auto completions = engine.submit({std::move(request)}, [reader] { reader->wake(); });
    EXPECT_TRUE(completions.ok()) << completions.error().message;
    reader->completion_ = completions->front();
    return reader;
  }
  int64_t id() const { return completion_->id(); }

  // Takes what is there, and waits for the end when asked to. The whole progress so far.
  const CompletionProgress& read(bool to_the_end) {
    take();
    while (to_the_end && !all_.finished) {
      std::unique_lock lock(mutex_);
      if (!news_.wait_for(lock, std::chrono::seconds(60), [this] { return awake_; })) {
        ADD_FAILURE() << "request " << id() << " gives nothing for 60 s";
        break;
      }
      awake_ = false;
      lock.unlock();
      take();
    }
    return all_;
  }

 private:
  void wake() {
    std::lock_guard lock(mutex_);
    awake_ = true;
    news_.notify_all();
  }
  void take() {
    auto more = completion_->take();
    all_.tokens.insert(all_.tokens.end(), more.tokens.begin(), more.tokens.end());
    all_.text += more.text;
    all_.finished |= more.finished;
    if (more.reason) all_.reason = more.reason;
    if (more.error) all_.error = more.error;
  }

  std::shared_ptr<Completion> completion_;
  CompletionProgress all_;
  std::mutex mutex_;
  std::condition_variable news_;
  bool awake_ = false;
};

}  // namespace tessera::serve
