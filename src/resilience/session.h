// One generation of a worker: builds the trainer for the rank and layout of the plan, fetches its state, and
// runs steps until the job is done or the generation is interrupted.
#pragma once

#include "checkpoint/reader.h"
#include "checkpoint/writer.h"
#include "resilience/fault.h"
#include "resilience/link.h"
#include "resilience/snapshots.h"
#include "resilience/worker.h"

namespace tessera::resilience {

// What a worker keeps from one generation to the next.
struct WorkerState {
  Snapshots snapshots;
  int64_t steps_done = 0;
  JobResult result;
  double usual_step_s = 0;  // of the last one
};

class Session {
 public:
  Session(const Job& job, const WorkerContext& context, const Plan& plan, Link& link, FaultInjector& faults,
          WorkerState& state);
  ~Session();

  // true: all steps are done (or a stop was asked for); false: this worker is a spare.
  Result<bool> run();
  // Whether the generation was called off, so that an error is only an echo of that.
  bool interrupted() const { return groups_.aborted().has_value(); }

 private:
  Status build_trainer(const std::string& layout);
  Status bring_state();
  Status fetch_from_memory();
  Status load_from_disk();
  Result<int64_t> newest_step_on_disk();
  Status make_groups();
  Status train();
  Status run_step(int64_t step);
  Status take_snapshot(int64_t step);
  Status save(int64_t step);
  Status evaluate(int64_t step);
  Status finish();

  bool due(int64_t steps_done, int64_t every) const { return every > 0 && steps_done % every == 0; }
  std::filesystem::path checkpoint_folder() const { return job_.run_dir / "checkpoints"; }
  bool uses_disk() const { return job_.disk_checkpoints && !job_.run_dir.empty(); }

  const Job& job_;
  const Plan& plan_;
  Link& link_;
  FaultInjector& faults_;
  WorkerState& state_;
  const int64_t me_;  // this worker's id
  Groups groups_;
  Generation generation_;
  // In this order: what uses a group goes before it, and all before groups_.
  std::unique_ptr<Group> control_, snapshot_group_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<checkpoint::CheckpointWriter> writer_;
  int64_t saved_step_ = -1;
  bool stop_agreed_ = false, running_said_ = false, finished_ = false;
};

}  // namespace tessera::resilience
