// The roles of a training run as processes:
//
//   loader      reads the data
//   worker:N    embedding worker: names distinct ids, fetches and pools rows, sums gradients of rows
//   server:N    embedding server: rows in memory
//   trainer:N   dense trainer N; batch B is with worker B % workers
//   replica:N   a second copy of server N's rows, for another host (replica.h); where train.replicas says so
//
// Each is started with the same configuration and finds the others through the launcher's store (link.h). State
// that must not die with a process lies in memory files that its supervisor holds: rows and journal of a
// server, weights and pending gradients of a trainer (recsys/journal.h, recsys_train/trainer_memory.h). Loader
// and worker have none.
#pragma once

#include <atomic>

#include "recsys_roles/exchange.h"
#include "recsys_train/run.h"

namespace tessera::recsys_roles {

struct RoleName {
  enum Kind : uint8_t { loader, worker, server, trainer, replica } kind = loader;
  int64_t number = 0;
  std::string text() const;  // "loader", "server:1"
  friend bool operator==(const RoleName&, const RoleName&) = default;
};
Result<RoleName> parse_role(std::string_view text);

// Every role of a run, servers first.
std::vector<RoleName> all_roles(const recsys_train::RunConfig& run);
// Where a server's rows go that leave memory, below embedding.disk. They belong to the job: whoever starts one
// removes what an earlier one left.
std::filesystem::path disk_folder(const recsys_train::RunConfig& run, const RoleName& role);
// Memory files that a role keeps its state in.
int64_t memory_files(const recsys_train::RunConfig& run, const RoleName& role);

struct Place {
  Meeting meeting;
  std::vector<std::string> memory;  // of memory_files(); empty: private memory
  std::string promotion;            // key of the store: once it is set, a replica is the server
};

// A loader, worker, server or replica, which answers until it is destroyed.
class ServingRole {
 public:
  virtual ~ServingRole() = default;
};
// Errors: of the data, the memory files, the store; or that other roles are missing for too long.
Result<std::unique_ptr<ServingRole>> serve_role(const recsys_train::RunConfig& run, const RoleName& role,
                                                const Place& place);

// A dense trainer, to be given to recsys_train::train().
struct TrainerRole {
  GradientShelf shelf;
  std::unique_ptr<recsys_train::Setup> setup;
  std::unique_ptr<Door> door;  // last: closed before what it serves
};
Result<std::unique_ptr<TrainerRole>> set_up_trainer_role(const recsys_train::RunConfig& run, int64_t rank,
                                                         const Place& place);

}  // namespace tessera::recsys_roles
