// Who started this process, read from its environment.
//
//   launched  by `tessera launch`: TESSERA_STORE, TESSERA_TOKEN_FD (or TESSERA_TOKEN) and TESSERA_WORKER. The
//             launcher owns the store and says which rank this worker has; that may change with a generation.
//   outer     by torchrun, Slurm's srun or mpirun without our launcher: rank and size are fixed. Rank 0 owns
//   the
//             store, at MASTER_ADDR and MASTER_PORT + 1; nobody replaces a lost worker, the outer launcher
//             does.
//   alone     by hand: one process.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/result.h"

namespace tessera::resilience {

// Reads one variable; nullopt when it is not set. Tests give their own.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment process_environment();

// Rank, size and meeting point given by torchrun, Slurm or Open MPI; absent when none of them is there.
struct OuterJob {
  std::string launcher;  // "torchrun", "slurm", "open mpi"
  int64_t rank = 0, size = 1, local_rank = 0;
  std::string master_address = "127.0.0.1";
  int64_t master_port = 29500;
};
Result<std::optional<OuterJob>> outer_job(const Environment& environment);

struct WorkerContext {
  enum Kind { alone, launched, outer } kind = alone;
  std::string store;                           // "host:port"
  std::string token;                           // of the job
  int64_t worker = 0;                          // id of this process; never used twice within a job
  int64_t first_order = 0;                     // of the launcher's list, that concerns this worker
  int64_t rank = 0, size = 1, local_rank = 0;  // of an outer job; a launched worker's come with its generation
  std::string bind_address = "127.0.0.1";      // where this worker listens for its peers
};

// Reads, and for TESSERA_TOKEN_FD consumes, the environment. Call once, before any thread starts.
Result<WorkerContext> worker_context(const Environment& environment = process_environment());

}  // namespace tessera::resilience
