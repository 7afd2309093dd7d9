#include "resilience/link.h"

#include <cstdlib>
#include <numeric>

#include "comm/tcp_store.h"

namespace tessera::resilience {
namespace {

constexpr double kMeet = 120;  // seconds for all processes of an outer job to start

class LaunchedLink : public Link {
 public:
  LaunchedLink(std::unique_ptr<Liaison> liaison, int64_t worker)
      : liaison_(std::move(liaison)), worker_(worker) {}

  Result<std::optional<Plan>> join(int64_t after, const Report& report, Deadline deadline) override {
    for (;;) {
      TESSERA_ASSIGN_OR_RETURN(Liaison::Call call, liaison_->wait_call(after, deadline));
      if (call.generation == 0) return std::optional<Plan>();
      TESSERA_RETURN_IF_ERROR(liaison_->store().set(key::report(call.generation, worker_), encode(report)));
      TESSERA_ASSIGN_OR_RETURN(auto plan, liaison_->wait_plan(call.generation));
      if (plan) return plan;
      after = call.generation;
    }
  }
  void attend(int64_t generation, Liaison::Callbacks callbacks) override {
    liaison_->attend(generation, std::move(callbacks));
  }
  void ignore() override { liaison_->ignore(); }
  void progress(int64_t steps_done) override { liaison_->progress(steps_done); }
  void say_steps(int64_t steps_done) override {
    (void)liaison_->store().set(key::steps, std::to_string(steps_done));
  }
  bool stop_wanted() const override { return liaison_->stop_wanted(); }
  void say_running(int64_t generation, const Running& running) override {
    (void)liaison_->store().set(key::running(generation), encode(running));
  }
  Status say_done(int64_t generation, const std::string& result) override {
    return liaison_->store().set(key::done(generation, worker_), result);
  }
  void say_fatal(const Error& error) override {
    (void)liaison_->store().set(key::fatal(worker_), error.message);
  }
  bool recovers() const override { return true; }
  std::shared_ptr<Store> store() override { return liaison_->shared_store(); }

 private:
  std::unique_ptr<Liaison> liaison_;
  int64_t worker_;
};

// One generation for all time.
class StaticLink : public Link {
 public:
  StaticLink(std::string layout, int64_t ranks, std::unique_ptr<StoreServer> server,
             std::shared_ptr<Store> store)
      : server_(std::move(server)), store_(std::move(store)) {
    plan_.generation = 1;
    plan_.layout = std::move(layout);
    plan_.members.resize(static_cast<size_t>(ranks));
    std::iota(plan_.members.begin(), plan_.members.end(), 0);
    plan_.live = plan_.members;
  }
  Result<std::optional<Plan>> join(int64_t after, const Report&, Deadline) override {
    if (after > 0) return std::optional<Plan>();
    return std::optional<Plan>(plan_);
  }
  void attend(int64_t, Liaison::Callbacks) override {}
  void ignore() override {}
  void progress(int64_t) override {}
  void say_steps(int64_t) override {}
  bool stop_wanted() const override { return false; }
  void say_running(int64_t, const Running&) override {}
  Status say_done(int64_t, const std::string&) override { return {}; }
  void say_fatal(const Error&) override {}
  bool recovers() const override { return false; }
  std::shared_ptr<Store> store() override { return store_; }

 private:
  Plan plan_;
  std::unique_ptr<StoreServer> server_;  // on rank 0 of an outer job
  std::shared_ptr<Store> store_;
};

Result<std::unique_ptr<Link>> meet_outer(const WorkerContext& context, const std::string& layout,
                                         int64_t ranks) {
  size_t colon = context.store.rfind(':');
  std::string host = context.store.substr(0, colon);
  int port = std::atoi(context.store.c_str() + colon + 1);
  std::unique_ptr<StoreServer> server;
  if (context.rank == 0) {
    TESSERA_ASSIGN_OR_RETURN(server, StoreServer::start(host, port, context.token));
  }
  TESSERA_ASSIGN_OR_RETURN(auto store, connect_store(host, port, context.token, Deadline::after(kMeet)));
  return std::unique_ptr<Link>(
      std::make_unique<StaticLink>(layout, ranks, std::move(server), std::move(store)));
}

}  // namespace

Result<std::unique_ptr<Link>> make_link(const WorkerContext& context, const std::string& layout,
                                        int64_t ranks) {
  if (context.kind == WorkerContext::launched) {
    TESSERA_ASSIGN_OR_RETURN(auto liaison, Liaison::connect(context));
    return std::unique_ptr<Link>(std::make_unique<LaunchedLink>(std::move(liaison), context.worker));
  }
  int64_t processes = context.kind == WorkerContext::outer ? context.size : 1;
  if (ranks != processes) {
    return invalid("layout {} needs {} processes, but there {} {}; start it by `tessera launch -n {} -- ...`",
                   layout, ranks, processes == 1 ? "is" : "are", processes, ranks);
  }
  if (context.kind == WorkerContext::outer) return meet_outer(context, layout, ranks);
  return std::unique_ptr<Link>(std::make_unique<StaticLink>(layout, 1, nullptr, nullptr));
}

}  // namespace tessera::resilience
