// Faults on demand, for drills and tests: a worker that has one in its environment strikes itself at a given
// step. What follows is real: the process is killed or stopped by a signal, in whatever it does.
//
//   TESSERA_FAULT=kill@7:begin     SIGKILL before step 7
//   TESSERA_FAULT=kill@7:middle    SIGKILL half a step's time into step 7
//   TESSERA_FAULT=kill@7:save      SIGKILL while the checkpoint after step 7 is being written
//   TESSERA_FAULT=kill@7:together  SIGKILL before step 7, once WORLD_SIZE workers have come there
//   TESSERA_FAULT=stop@7:middle    SIGSTOP: the process stays, and does nothing
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "comm/group.h"
#include "resilience/context.h"

namespace tessera::resilience {

struct Fault {
  enum Moment { begin, middle, save, together } moment = begin;
  int signal = 0;
  int64_t step = 0;
};
Result<Fault> parse_fault(const std::string& text);
Result<std::optional<Fault>> fault_of(const Environment& environment);

class FaultInjector {
 public:
  // Writes the time of the strike to the store, so that the launcher's delay can be measured.
  FaultInjector(std::optional<Fault> fault, std::shared_ptr<Store> store, int64_t worker)
      : fault_(fault), store_(std::move(store)), worker_(worker) {}
  void step_begins(int64_t step, double usual_seconds);
  // `step` steps are done and a save into `directory` has been started.
  void save_started(int64_t step, const std::filesystem::path& directory);

 private:
  std::optional<Fault> fault_;
  std::shared_ptr<Store> store_;
  int64_t worker_;
};

}  // namespace tessera::resilience
