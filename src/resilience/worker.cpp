#include "resilience/worker.h"

#include <nlohmann/json.hpp>

#include "core/log.h"
#include "resilience/layout_choice.h"
#include "resilience/session.h"

namespace tessera::resilience {
namespace {

constexpr double kFirstCall = 60;       // seconds until the launcher calls the first generation
constexpr double kCallAfterError = 20;  // until a failed operation is followed by a call: the launcher notices
                                        // a silent worker within a few seconds

std::string to_json(const JobResult& result) {
  return nlohmann::json{{"rank", result.rank},
                        {"steps", result.steps},
                        {"loss", result.loss},
                        {"weights_hash", result.weights_hash},
                        {"generations", result.generations},
                        {"snapshot_s", result.snapshot_s},
                        {"checkpoint_s", result.checkpoint_s}}
      .dump();
}

Status check(const Job& job) {
  if (!job.train) return invalid("the job has no training data");
  if (job.steps < 1) return invalid("steps must be at least 1, got {}", job.steps);
  return validate(job.model, job.work, job.layout);
}

// Whether an error may be the echo of a lost peer.
bool may_recover(const Error& error) {
  return error.code == ErrorCode::unavailable || error.code == ErrorCode::aborted ||
         error.code == ErrorCode::deadline_exceeded;
}

class Worker {
 public:
  Worker(const Job& job, const WorkerContext& context, std::unique_ptr<Link> link, FaultInjector faults)
      : job_(job), context_(context), link_(std::move(link)), faults_(std::move(faults)) {
    report_.worker = context.worker;
    report_.ranks = job.layout.processes();
    report_.layouts = layouts_of_equal_work(job.model, job.work, job.layout);
  }

  Result<JobResult> run() {
    std::optional<Error> failure;  // of the generation before
    Deadline deadline = Deadline::after(kFirstCall);
    for (int64_t generation = 0;;) {
      TESSERA_ASSIGN_OR_RETURN(auto plan, next(generation, failure, deadline));
      if (!plan) return state_.result;
      generation = plan->generation;
      failure = take_part(std::move(*plan));
      deadline = Deadline::after(failure ? kCallAfterError : kForever);
    }
  }

 private:
  static constexpr double kForever = 1e8;

  // After an error that no new generation follows, the error is what the caller should see.
  Result<std::optional<Plan>> next(int64_t after, const std::optional<Error>& failure, Deadline deadline) {
    bool hopeless = failure && !(link_->recovers() && may_recover(*failure));
    if (hopeless) {
      link_->say_fatal(*failure);
      return *failure;
    }
    report_.steps_done = state_.steps_done;
    report_.held = state_.snapshots.held();
    auto plan = link_->join(after, report_, deadline);
    if (!plan && failure && plan.error().code == ErrorCode::deadline_exceeded) return *failure;
    return plan;
  }

  std::optional<Error> take_part(Plan plan) {
    session_.reset();
    plan_ = std::move(plan);
    session_ = std::make_unique<Session>(job_, context_, plan_, *link_, faults_, state_);
    auto finished = session_->run();
    if (!finished) {
      Error error = finished.error();
      if (session_->interrupted()) error.code = ErrorCode::aborted;
      session_.reset();
      log(LogLevel::debug, "generation {}: {}", plan_.generation, error.message);
      return error;
    }
    if (!*finished) return std::nullopt;
    Status said = link_->say_done(plan_.generation, to_json(state_.result));
    return said.ok() ? std::nullopt : std::optional<Error>(said.error());
  }

  const Job& job_;
  const WorkerContext& context_;
  std::unique_ptr<Link> link_;
  FaultInjector faults_;
  WorkerState state_;
  Report report_;
  Plan plan_;
  std::unique_ptr<Session> session_;  // of the last plan; goes before what it refers to
};

}  // namespace

Result<JobResult> run_job(const Job& job, const WorkerContext& context) {
  TESSERA_RETURN_IF_ERROR(check(job));
  TESSERA_ASSIGN_OR_RETURN(auto fault, fault_of(process_environment()));
  TESSERA_ASSIGN_OR_RETURN(auto link, make_link(context, to_string(job.layout), job.layout.processes()));
  FaultInjector faults(fault, link->store(), context.worker);
  return Worker(job, context, std::move(link), std::move(faults)).run();
}

}  // namespace tessera::resilience
