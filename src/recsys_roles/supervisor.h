// Starts the roles of a run as processes and replaces those that die. It holds what must outlive them: the
// job's store (where roles meet) and the memory files with rows, weights and pending gradients. A role that is
// killed is noticed in milliseconds, one that is stopped in `silence_s`; it is named, its old door is forgotten
// (link.h), and a new process takes its place on the same memory. The others wait for it meanwhile and lose
// nothing.
//
// Several supervisors, each on its host, make one job: the first owns the store, the others join it. A host
// that is silent for `host_silence_s` is gone with its memory: replicas elsewhere take the place of its
// servers, and its stateless roles and replicas are started again on the hosts that are left (hosts.h,
// replica.h). This does not hold for the host of the store, and not for one with a trainer: then the job ends.
//
// The number of embedding servers may change while the job runs (mover.h), on an order left in the run's folder
// (reshard.h). New ones start on the host of the store, unless another host has started them with --roles.
//
// Errors end the job: a role ends by itself with an error, or was replaced too often. Threads: one, which must
// live as long as the roles.
#pragma once

#include <filesystem>
#include <functional>

#include "recsys_roles/role.h"
#include "recsys_roles/strike.h"
#include "resilience/event.h"
#include "resilience/launcher.h"

namespace tessera::recsys_roles {

struct SupervisorOptions {
  recsys_train::RunConfig run;
  std::vector<RoleName> roles;        // to start here
  std::vector<std::string> command;   // of a role; "--role NAME" is added
  std::string address = "127.0.0.1";  // where store and roles listen
  int port = 0;                       // of the store; 0: any free one
  std::string join;                   // HOST:PORT of the store of another supervisor; empty: own it
  std::string token;                  // of the job; empty: a random one
  bool keep_memory = true;            // false: a role that dies takes its state with it, and the job ends
  int64_t max_restarts = 3;           // of one role, while each lasts less than ten minutes
  double silence_s = 3;               // without a sign of life, a role is killed
  double start_s = 120;               // the same before its first one
  double host_silence_s = 4;          // without one of a supervisor, its host is gone
  std::vector<Strike> strikes;
  std::filesystem::path run_dir;  // events.jsonl, logs, and where orders come to; empty: none
  std::function<void(const resilience::Event&)> on_event;
  std::function<void(const resilience::OutputLine&, const RoleName&)> on_line;
  std::function<void(const std::string& store_address)> on_meet;
  const resilience::StopRequest* stop = nullptr;
};

struct SupervisorResult {
  std::vector<resilience::Event> events;
  int64_t restarts = 0;
  bool stopped = false;  // by SupervisorOptions::stop
};

Result<SupervisorResult> supervise(const SupervisorOptions& options);

// What a replica in that process looks at (Place::promotion).
std::string promotion_key(int64_t process);

// What a trainer says when it has finished; it stays until all have, because they may still need its gradients.
Status finish_together(Store& store, const recsys_train::RunConfig& run, int64_t rank);

}  // namespace tessera::recsys_roles
