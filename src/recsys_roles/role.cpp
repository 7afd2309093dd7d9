#include "recsys_roles/role.h"

#include <charconv>

#include "core/nearest.h"
#include "recsys_roles/mover.h"
#include "recsys_roles/remote_loader.h"
#include "recsys_roles/remote_servers.h"
#include "recsys_roles/remote_worker.h"
#include "recsys_roles/replica.h"

namespace tessera::recsys_roles {
namespace {

using namespace recsys_train;

constexpr const char* kKinds[] = {"loader", "worker", "server", "trainer", "replica"};

// Batches that may be asked for again or out of turn: those under way at all trainers, and as many that lie in
// their pipelines.
int64_t batches_kept(const RunConfig& run) {
  auto bounds = staleness_bounds(run.trainer, 1);
  return run.trainer.parts * (2 * run.trainer.prefetch + bounds.largest() + 8);
}

class LoaderRole : public ServingRole {
 public:
  static Result<std::unique_ptr<ServingRole>> open(const RunConfig& run, const Place& place) {
    auto role = std::make_unique<LoaderRole>();
    TESSERA_ASSIGN_OR_RETURN(auto splits, recsys_data::open_data(run.data));
    role->splits_ = std::make_unique<recsys_data::Splits>(std::move(splits));
    role->loader_ = std::make_unique<LocalLoader>(*role->splits_, batches_kept(run));
    TESSERA_ASSIGN_OR_RETURN(role->door_,
                             Door::open(place.meeting, RoleName{}.text(), serve_loader(*role->loader_)));
    TESSERA_RETURN_IF_ERROR(publish_facts(*place.meeting.store, facts_of(*role->splits_)));
    return std::unique_ptr<ServingRole>(std::move(role));
  }

 private:
  std::unique_ptr<recsys_data::Splits> splits_;
  std::unique_ptr<LocalLoader> loader_;
  std::unique_ptr<Door> door_;
};

Result<EmbeddingPlan> await_plan(const RunConfig& run, const Place& place) {
  TESSERA_ASSIGN_OR_RETURN(DataFacts facts,
                           await_facts(*place.meeting.store, Deadline::after(place.meeting.patience_s)));
  return plan_embeddings(run, facts.features);
}

recsys::DiskOptions disk_of(const RunConfig& run, const RoleName& role) {
  recsys::DiskOptions disk = run.disk;
  if (disk.folder.empty()) return disk;
  disk.folder = disk_folder(run, role).string();
  std::error_code failure;  // the store says it
  std::filesystem::create_directories(disk.folder, failure);
  return disk;
}

class ServerRole : public ServingRole {
 public:
  static Result<std::unique_ptr<ServingRole>> open(const RunConfig& run, const RoleName& name,
                                                   const Place& place) {
    auto role = std::make_unique<ServerRole>();
    TESSERA_ASSIGN_OR_RETURN(EmbeddingPlan plan, await_plan(run, place));
    TESSERA_ASSIGN_OR_RETURN(ServerMap map, read_map(*place.meeting.store, run.servers));
    ServingOptions serving = serving_options(run);
    if (name.number >= map.servers) serving.resume.clear();  // its rows will come from the others
    TESSERA_ASSIGN_OR_RETURN(role->store_, ServedStore::open({.groups = plan.store_groups,
                                                              .memory_files = place.memory,
                                                              .disk = disk_of(run, name)},
                                                             serving, name.number, map.servers));
    role->store_->take_seat({.server = name.number, .servers = map.servers, .map = map.number});
    // A process before this one may have died in the middle of a move.
    TESSERA_RETURN_IF_ERROR(role->store_->clean());
    TESSERA_ASSIGN_OR_RETURN(role->moves_, MoveEnd::open(place.meeting, name.number, *role->store_));
    if (run.replicas > 0) {
      TESSERA_ASSIGN_OR_RETURN(role->chain_, Chain::open(place.meeting, name.number, *role->store_));
    }
    TESSERA_ASSIGN_OR_RETURN(role->door_, Door::open(place.meeting, name.text(), serve_store(*role->store_)));
    return std::unique_ptr<ServingRole>(std::move(role));
  }

 private:
  std::unique_ptr<ServedStore> store_;
  std::unique_ptr<MoveEnd> moves_;
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<Door> door_;
};

class WorkerRole : public ServingRole {
 public:
  static Result<std::unique_ptr<ServingRole>> open(const RunConfig& run, const RoleName& name,
                                                   const Place& place) {
    auto role = std::make_unique<WorkerRole>();
    TESSERA_ASSIGN_OR_RETURN(EmbeddingPlan plan, await_plan(run, place));
    TrainerOptions options = run.trainer;
    options.group_staleness = plan.staleness;
    role->loader_ = make_remote_loader(place.meeting, RoleName{}.text());
    role->servers_ = make_remote_servers(place.meeting, run.servers, run.wire, dims_of(plan));
    role->view_ = WorkerView(run, plan, *role->servers_, WorkerView::Place::other_processes);
    role->worker_ = std::make_unique<LocalWorker>(*role->loader_, role->view_.servers(), plan.lookup,
                                                  staleness_bounds(options, plan.lookup.num_groups));
    TESSERA_ASSIGN_OR_RETURN(role->door_, Door::open(place.meeting, name.text(), serve_worker(*role->worker_)));
    return std::unique_ptr<ServingRole>(std::move(role));
  }

 private:
  std::unique_ptr<BatchLoader> loader_;
  std::unique_ptr<EmbeddingServers> servers_;
  WorkerView view_;
  std::unique_ptr<LocalWorker> worker_;
  std::unique_ptr<Door> door_;
};

}  // namespace

std::string RoleName::text() const {
  return kind == loader ? kKinds[kind] : fmt::format("{}:{}", kKinds[kind], number);
}

Result<RoleName> parse_role(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  for (uint8_t i = 0; i < std::size(kKinds); ++i) {
    if (kind != kKinds[i]) continue;
    RoleName role{.kind = static_cast<RoleName::Kind>(i)};
    if (role.kind == RoleName::loader && colon == std::string_view::npos) return role;
    std::string_view digits = colon == std::string_view::npos ? "" : text.substr(colon + 1);
    auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), role.number);
    if (role.kind == RoleName::loader || digits.empty() || failure != std::errc() ||
        end != digits.data() + digits.size() || role.number < 0)
      return invalid("role '{}': expected loader, worker:N, server:N, replica:N or trainer:N", text);
    return role;
  }
  return invalid("role '{}': expected loader, worker:N, server:N, replica:N or trainer:N{}", text,
                 did_you_mean(kind, {"loader", "worker", "server", "replica", "trainer"}));
}

std::vector<RoleName> all_roles(const RunConfig& run) {
  std::vector<RoleName> roles;
  auto add = [&](RoleName::Kind kind, int64_t count) {
    for (int64_t i = 0; i < count; ++i) roles.push_back({kind, i});
  };
  add(RoleName::server, run.servers);
  if (run.replicas > 0) add(RoleName::replica, run.servers);
  add(RoleName::loader, 1);
  add(RoleName::worker, run.workers);
  add(RoleName::trainer, run.trainers);
  return roles;
}

std::filesystem::path disk_folder(const RunConfig& run, const RoleName& role) {
  return std::filesystem::path(run.disk.folder) / fmt::format("server-{}", role.number);
}

int64_t memory_files(const RunConfig& run, const RoleName& role) {
  if (role.kind == RoleName::trainer) return 1;
  if (role.kind != RoleName::server && role.kind != RoleName::replica) return 0;
  const auto groups = static_cast<int64_t>(run.groups.size()) + 1;
  return groups * (has_linear_part(run.model.kind) ? 2 : 1) + 1;  // and the journal
}

Result<std::unique_ptr<ServingRole>> serve_role(const RunConfig& run, const RoleName& role,
                                                const Place& place) {
  if (role.kind == RoleName::loader) return LoaderRole::open(run, place);
  if (role.kind == RoleName::worker) return WorkerRole::open(run, role, place);
  if (role.kind == RoleName::replica) return open_replica(run, role.number, place);
  TESSERA_REQUIRE(role.kind == RoleName::server, "{} trains and does not serve", role.text());
  return ServerRole::open(run, role, place);
}

Result<std::unique_ptr<TrainerRole>> set_up_trainer_role(const RunConfig& run, int64_t rank,
                                                         const Place& place) {
  if (rank >= run.trainers) return invalid("trainer:{} of {} trainers", rank, run.trainers);
  auto role = std::make_unique<TrainerRole>();
  TESSERA_ASSIGN_OR_RETURN(DataFacts facts,
                           await_facts(*place.meeting.store, Deadline::after(place.meeting.patience_s)));
  TrainerSeat seat{.rank = rank, .trainers = run.trainers};
  seat.exchange = exchange_by_pull(place.meeting, role->shelf, rank, run.trainers);
  if (!place.memory.empty()) seat.memory = place.memory.front();
  auto worker = make_remote_workers(place.meeting, run.workers, run.wire.pooled);
  TESSERA_ASSIGN_OR_RETURN(role->setup, set_up_trainer(run, facts, std::move(worker), seat));
  // What the process before this one had told the others: they may not have heard it.
  const int64_t last = role->setup->trainer->standing().step - 1;
  if (auto gradients = role->setup->trainer->kept_dense(last); !gradients.empty())
    role->shelf.show(last, std::move(gradients));
  if (run.trainers == 1) return role;
  TESSERA_ASSIGN_OR_RETURN(role->door,
                           Door::open(place.meeting, trainer_role(rank), serve_gradients(role->shelf)));
  return role;
}

}  // namespace tessera::recsys_roles
