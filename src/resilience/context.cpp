#include "resilience/context.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>

namespace tessera::resilience {
namespace {

Result<int64_t> number_in(const Environment& environment, const std::string& name) {
  auto text = environment(name);
  if (!text) return make_error(ErrorCode::not_found, "environment variable {} is not set", name);
  int64_t value = 0;
  auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (failure != std::errc() || end != text->data() + text->size() || value < 0)
    return invalid("environment variable {} must be a count, got '{}'", name, *text);
  return value;
}

// Names that one launcher gives to rank, size and local rank.
struct Dialect {
  const char* launcher;
  const char *rank, *size, *local_rank;
};
constexpr Dialect kDialects[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"open mpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
};

// Slurm's "node[03-07,12],other" starts with the host "node03".
std::string first_host(const std::string& list) {
  size_t bracket = list.find_first_of("[,");
  if (bracket == std::string::npos || list[bracket] == ',') return list.substr(0, bracket);
  size_t end = list.find_first_of("-,]", bracket);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

Status find_master(const Environment& environment, OuterJob& job) {
  if (auto address = environment("MASTER_ADDR")) {
    job.master_address = *address;
  } else if (auto nodes = environment("SLURM_STEP_NODELIST")) {
    job.master_address = first_host(*nodes);
  }
  if (!environment("MASTER_PORT")) return {};
  TESSERA_ASSIGN_OR_RETURN(job.master_port, number_in(environment, "MASTER_PORT"));
  return {};
}

Result<OuterJob> read_dialect(const Environment& environment, const Dialect& dialect) {
  OuterJob job;
  job.launcher = dialect.launcher;
  TESSERA_ASSIGN_OR_RETURN(job.rank, number_in(environment, dialect.rank));
  TESSERA_ASSIGN_OR_RETURN(job.size, number_in(environment, dialect.size));
  if (environment(dialect.local_rank)) {
    TESSERA_ASSIGN_OR_RETURN(job.local_rank, number_in(environment, dialect.local_rank));
  }
  if (job.rank >= job.size)
    return invalid("{}={} but {}={}: a rank lies below the size", dialect.rank, job.rank, dialect.size,
                   job.size);
  TESSERA_RETURN_IF_ERROR(find_master(environment, job));
  return job;
}

// The launcher writes the token into a pipe, so that it is in no argument list.
Result<std::string> read_token(const Environment& environment) {
  if (!environment("TESSERA_TOKEN_FD")) return environment("TESSERA_TOKEN").value_or("");
  TESSERA_ASSIGN_OR_RETURN(int64_t descriptor, number_in(environment, "TESSERA_TOKEN_FD"));
  std::string token;
  char buffer[256];
  while (ssize_t got = ::read(static_cast<int>(descriptor), buffer, sizeof buffer)) {
    if (got < 0) return invalid("cannot read the job's token from descriptor {}", descriptor);
    token.append(buffer, static_cast<size_t>(got));
  }
  if (descriptor > 2) ::close(static_cast<int>(descriptor));
  return token;
}

}  // namespace

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  };
}

Result<std::optional<OuterJob>> outer_job(const Environment& environment) {
  for (const Dialect& dialect : kDialects) {
    if (!environment(dialect.rank) || !environment(dialect.size)) continue;
    TESSERA_ASSIGN_OR_RETURN(OuterJob job, read_dialect(environment, dialect));
    return std::optional<OuterJob>(job);
  }
  return std::optional<OuterJob>();
}

Result<WorkerContext> worker_context(const Environment& environment) {
  WorkerContext context;
  context.bind_address = environment("TESSERA_BIND").value_or("127.0.0.1");
  if (auto store = environment("TESSERA_STORE")) {
    context.kind = WorkerContext::launched;
    context.store = *store;
    TESSERA_ASSIGN_OR_RETURN(context.token, read_token(environment));
    TESSERA_ASSIGN_OR_RETURN(context.worker, number_in(environment, "TESSERA_WORKER"));
    if (environment("TESSERA_FIRST_ORDER")) {
      TESSERA_ASSIGN_OR_RETURN(context.first_order, number_in(environment, "TESSERA_FIRST_ORDER"));
    }
    return context;
  }
  TESSERA_ASSIGN_OR_RETURN(auto outer, outer_job(environment));
  if (!outer || outer->size == 1) return context;
  context.kind = WorkerContext::outer;
  context.store = fmt::format("{}:{}", outer->master_address, outer->master_port + 1);
  context.token = environment("TESSERA_TOKEN").value_or("");
  context.worker = context.rank = outer->rank;
  context.size = outer->size;
  context.local_rank = outer->local_rank;
  return context;
}

}  // namespace tessera::resilience
