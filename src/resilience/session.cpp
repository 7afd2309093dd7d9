#include "resilience/session.h"

#include <algorithm>

#include "checkpoint/agreement.h"
#include "core/log.h"
#include "resilience/peer_state.h"

namespace tessera::resilience {
namespace {

// Says at the start of a step whether this rank wants to stop after it; by its end all ranks know of each
// other, so that all stop after the same step. The exchange hides behind the step.
class StopVote {
 public:
  StopVote(Group& group, bool wish) : mine_(wish ? 1 : 0), all_(static_cast<size_t>(group.size())) {
    pending_ = group.start_all_gather(bytes_of(std::span<const uint8_t>(&mine_, 1)),
                                      mutable_bytes_of(std::span<uint8_t>(all_)));
  }
  ~StopVote() {
    if (pending_) (void)pending_->wait();
  }
  Result<bool> outcome() {
    Pending pending = std::move(pending_);
    TESSERA_RETURN_IF_ERROR(pending->wait());
    return std::any_of(all_.begin(), all_.end(), [](uint8_t wish) { return wish != 0; });
  }

 private:
  uint8_t mine_;
  std::vector<uint8_t> all_;
  Pending pending_;
};

GroupsOptions groups_options(const WorkerContext& context, int64_t generation) {
  return {
      .prefix = fmt::format("g{}/", generation), .token = context.token, .bind_address = context.bind_address};
}

}  // namespace

Session::Session(const Job& job, const WorkerContext& context, const Plan& plan, Link& link,
                 FaultInjector& faults, WorkerState& state)
    : job_(job),
      plan_(plan),
      link_(link),
      faults_(faults),
      state_(state),
      me_(context.worker),
      groups_(link.store(), groups_options(context, plan.generation)) {
  generation_.number = plan.generation;
  generation_.rank = plan.rank_of(me_).value_or(-1);
}

Session::~Session() {
  link_.ignore();
  if (!finished_) groups_.abort(make_error(ErrorCode::aborted, "generation {} is over", plan_.generation));
  state_.snapshots.leave();
}

Result<bool> Session::run() {
  link_.attend(plan_.generation,
               {.interrupt = [this](const Error& error) { groups_.abort(error); }, .operation = {}});
  state_.result.rank = generation_.rank;
  state_.result.generations = plan_.generation;
  if (generation_.rank >= 0) TESSERA_RETURN_IF_ERROR(build_trainer(plan_.layout));
  TESSERA_RETURN_IF_ERROR(bring_state());
  if (generation_.rank < 0) return false;
  if (job_.on_generation) job_.on_generation(generation_, *trainer_);
  TESSERA_RETURN_IF_ERROR(train());
  TESSERA_RETURN_IF_ERROR(finish());
  return true;
}

Status Session::build_trainer(const std::string& layout) {
  TESSERA_ASSIGN_OR_RETURN(generation_.layout, parse_layout(layout));
  train::TrainerOptions options;
  options.model = job_.model;
  options.work = job_.work;
  options.layout = generation_.layout;
  options.optimizer = job_.optimizer;
  options.total_steps = job_.steps;
  options.seed = job_.seed;
  options.rank = generation_.rank;
  options.make_group = [this](const std::string& name, const std::vector<int64_t>& members) {
    return groups_.make("train/" + name, members, generation_.rank);
  };
  TESSERA_ASSIGN_OR_RETURN(trainer_, job_.make_trainer ? job_.make_trainer(std::move(options))
                                                       : train::Trainer::create(std::move(options)));
  link_.attend(plan_.generation, {.interrupt =
                                      [this](const Error& error) {
                                        groups_.abort(error);
                                        trainer_->abort(error);
                                      },
                                  .operation = [this] { return trainer_->current_operation(); }});
  return make_groups();
}

Status Session::make_groups() {
  std::vector<int64_t> ranks;
  for (int64_t rank = 0; rank < generation_.layout.processes(); ++rank) ranks.push_back(rank);
  TESSERA_ASSIGN_OR_RETURN(control_, groups_.make("control", ranks, generation_.rank));
  if (job_.snapshot_every > 0 && ranks.size() > 1) {
    TESSERA_ASSIGN_OR_RETURN(snapshot_group_, groups_.make("snapshot", ranks, generation_.rank));
    state_.snapshots.join(plan_.generation, snapshot_group_.get());
  }
  if (!uses_disk()) return {};
  TESSERA_ASSIGN_OR_RETURN(auto group, groups_.make("checkpoint", ranks, generation_.rank));
  checkpoint::WriterOptions options;
  options.directory = checkpoint_folder();
  options.model = job_.model;
  options.keep = job_.keep;
  options.config_json = job_.config_json;
  options.copies = job_.checkpoint_copies;
  writer_ = std::make_unique<checkpoint::CheckpointWriter>(std::move(options), std::move(group));
  return {};
}

Status Session::bring_state() {
  if (plan_.source == StateSource::memory) return fetch_from_memory();
  return generation_.rank < 0 ? Status() : load_from_disk();
}

// Spares give what they hold, too.
Status Session::fetch_from_memory() {
  TESSERA_ASSIGN_OR_RETURN(auto group, groups_.make("state", plan_.live, me_));
  auto held = state_.snapshots.parts_of(plan_.snapshot);
  std::vector<NeededBox> needed;
  if (trainer_) needed = boxes_of(trainer_->state());
  TESSERA_ASSIGN_OR_RETURN(auto pieces, fetch_from_peers(*group, needed, held));
  generation_.source = "memory";
  generation_.first_step = plan_.snapshot.step;
  return trainer_ ? trainer_->restore(pieces) : Status();
}

// Rank 0 looks, all open the same. Nothing there: the trainer's fresh weights are the state.
Status Session::load_from_disk() {
  generation_.source = "fresh";
  generation_.first_step = 0;
  bool may_read = uses_disk() && (job_.resume || plan_.generation > 1);
  if (!may_read) return {};
  int64_t step = -1;
  Status looked;
  if (generation_.rank == 0) {
    auto newest = newest_step_on_disk();
    if (newest)
      step = *newest;
    else
      looked = newest.error();
  }
  TESSERA_RETURN_IF_ERROR(checkpoint::agree(*control_, looked));
  TESSERA_RETURN_IF_ERROR(control_->broadcast(0, mutable_bytes_of(std::span<int64_t>(&step, 1))));
  if (step < 0) return {};
  auto reader = checkpoint::CheckpointReader::open(checkpoint::step_directory(checkpoint_folder(), step));
  Status opened = reader ? (*reader)->check_against(inventory(job_.model)) : reader.error();
  TESSERA_RETURN_IF_ERROR(checkpoint::agree(*control_, opened));
  generation_.source = "disk";
  generation_.first_step = saved_step_ = step;
  return trainer_->restore(**reader);
}

Result<int64_t> Session::newest_step_on_disk() {
  auto newest = checkpoint::open_newest_intact(checkpoint_folder());
  if (!newest && newest.error().code == ErrorCode::not_found) return -1;
  if (!newest) return newest.error();
  for (const Error& why : newest->skipped) log(LogLevel::warn, "{}", why.message);
  return newest->reader->training().step;
}

Status Session::train() {
  state_.steps_done = generation_.first_step;
  link_.progress(state_.steps_done);
  TESSERA_RETURN_IF_ERROR(take_snapshot(generation_.first_step));
  for (int64_t step = generation_.first_step; step < job_.steps && !stop_agreed_; ++step)
    TESSERA_RETURN_IF_ERROR(run_step(step));
  return {};
}

Status Session::run_step(int64_t step) {
  faults_.step_begins(step, state_.usual_step_s);
  StopVote vote(*control_, link_.stop_wanted() || (job_.stop != nullptr && *job_.stop));
  TESSERA_ASSIGN_OR_RETURN(train::StepReport report, trainer_->step(step, *job_.train));
  TESSERA_ASSIGN_OR_RETURN(stop_agreed_, vote.outcome());
  TESSERA_RETURN_IF_ERROR(state_.snapshots.commit());

  int64_t done = step + 1;
  state_.steps_done = state_.result.steps = done;
  state_.result.loss = report.loss;
  state_.usual_step_s = report.seconds;
  link_.progress(done);
  if (generation_.rank == 0) {
    link_.say_steps(done);
    if (!running_said_) link_.say_running(plan_.generation, {generation_.first_step, generation_.source});
    running_said_ = true;
    if (job_.on_step) job_.on_step(report, *trainer_);
  }
  bool last = done == job_.steps || stop_agreed_;
  if (due(done, job_.snapshot_every) && !last) TESSERA_RETURN_IF_ERROR(take_snapshot(done));
  if (due(done, job_.checkpoint_every) || last) TESSERA_RETURN_IF_ERROR(save(done));
  if (due(done, job_.eval_every) || (last && job_.eval_every > 0)) return evaluate(done);
  return {};
}

Status Session::take_snapshot(int64_t step) {
  if (!snapshot_group_) return {};
  double before = state_.snapshots.seconds();
  auto pieces = trainer_->state();
  TESSERA_RETURN_IF_ERROR(state_.snapshots.take(step, pieces));
  state_.result.snapshot_s += state_.snapshots.seconds() - before;
  return {};
}

Status Session::save(int64_t step) {
  if (!writer_ || step == saved_step_) return {};
  auto start = Clock::now();
  checkpoint::TrainingRecord record;
  record.step = step;
  record.seed = job_.seed;
  record.work = job_.work;
  record.layout = generation_.layout;
  record.optimizer = job_.optimizer_text;
  auto pieces = trainer_->state();
  TESSERA_RETURN_IF_ERROR(writer_->start(record, pieces));
  saved_step_ = step;
  state_.result.checkpoint_s += seconds_since(start);
  faults_.save_started(step, checkpoint_folder());
  return {};
}

Status Session::evaluate(int64_t step) {
  if (!job_.valid || job_.eval_samples <= 0) return {};
  TESSERA_ASSIGN_OR_RETURN(double loss, trainer_->evaluate(*job_.valid, 0, job_.eval_samples));
  if (generation_.rank == 0 && job_.on_evaluation) job_.on_evaluation(step, loss);
  return {};
}

Status Session::finish() {
  if (state_.steps_done >= job_.steps) TESSERA_RETURN_IF_ERROR(save(state_.steps_done));
  if (writer_ && saved_step_ > generation_.first_step) {
    auto saved = writer_->wait();
    if (!saved) return saved.error();
  }
  TESSERA_ASSIGN_OR_RETURN(state_.result.weights_hash, trainer_->weights_hash());
  TESSERA_RETURN_IF_ERROR(control_->barrier());
  finished_ = true;
  return {};
}

}  // namespace tessera::resilience
