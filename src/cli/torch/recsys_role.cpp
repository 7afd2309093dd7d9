// tessera recsys train --role NAME: one process of a job that `tessera launch` started.
#include <unistd.h>

#include <cstdlib>

#include "cli/torch/recsys_roles.h"
#include "comm/tcp_store.h"
#include "core/log.h"
#include "recsys_roles/pulse.h"
#include "recsys_roles/supervisor.h"
#include "resilience/context.h"
#include "resilience/protocol.h"

namespace tessera::cli {
namespace {

using recsys_roles::Place;
using recsys_roles::RoleName;

constexpr double kConnect_s = 30;

std::vector<std::string> memory_of_environment() {
  const char* text = std::getenv("TESSERA_ROLE_MEMORY");
  std::vector<std::string> paths;
  std::string_view rest = text ? text : "";
  while (!rest.empty()) {
    size_t comma = rest.find(',');
    paths.emplace_back(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
  return paths;
}

Result<Place> find_place(const resilience::WorkerContext& context) {
  if (context.kind != resilience::WorkerContext::launched)
    return invalid("--role needs a job: start it by `tessera launch -- recsys train --config FILE`");
  const size_t colon = context.store.rfind(':');
  if (colon == std::string::npos) return invalid("TESSERA_STORE={}: expected HOST:PORT", context.store);
  Place place{.meeting = {}, .memory = memory_of_environment()};
  place.meeting.token = context.token;
  place.meeting.bind_address = context.bind_address;
  place.promotion = recsys_roles::promotion_key(context.worker);
  TESSERA_ASSIGN_OR_RETURN(place.meeting.store, connect_store(context.store.substr(0, colon),
                                                              std::atoi(context.store.c_str() + colon + 1),
                                                              context.token, Deadline::after(kConnect_s)));
  return place;
}

Status run_trainer(const recsys_train::RunConfig& run, const RoleName& name, const Place& place,
                   recsys_roles::Pulse& pulse, const TrainerBody& train) {
  TESSERA_ASSIGN_OR_RETURN(auto role, set_up_trainer_role(run, name.number, place));
  Store& store = *place.meeting.store;
  auto progress = [&pulse](int64_t steps) { pulse.progress(steps); };
  TESSERA_RETURN_IF_ERROR(train(*role->setup, progress));
  return recsys_roles::finish_together(store, run, name.number);
}

Status run_in_place(const recsys_train::RunConfig& run, const RoleName& name, const Place& place,
                    recsys_roles::Pulse& pulse, const TrainerBody& train) {
  if (name.kind == RoleName::trainer) return run_trainer(run, name, place, pulse, train);
  TESSERA_ASSIGN_OR_RETURN(auto serving, recsys_roles::serve_role(run, name, place));
  for (;;) ::pause();  // until the launcher ends it
}

}  // namespace

Status run_recsys_role(const recsys_train::RunConfig& run, const std::string& text, const TrainerBody& train) {
  TESSERA_ASSIGN_OR_RETURN(RoleName name, recsys_roles::parse_role(text));
  set_log_name(name.text());
  TESSERA_ASSIGN_OR_RETURN(auto context, resilience::worker_context());
  TESSERA_ASSIGN_OR_RETURN(Place place, find_place(context));
  recsys_roles::Pulse pulse(place.meeting.store, context.worker, name == RoleName{RoleName::trainer, 0});
  Status status = run_in_place(run, name, place, pulse, train);
  if (status.ok()) return {};
  (void)place.meeting.store->set(resilience::key::fatal(context.worker), status.error().message);
  return status;
}

}  // namespace tessera::cli
