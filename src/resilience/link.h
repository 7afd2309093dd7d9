// How a worker learns its place: from the launcher, generation after generation, or once from an outer launcher
// or from being alone.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "resilience/groups.h"
#include "resilience/liaison.h"

namespace tessera::resilience {

class Link {
 public:
  virtual ~Link() = default;

  // The next generation after `after`; the worker's report is sent when it is called. Nothing: the job has
  // ended well. A loss of patience (`deadline`) is an error; before the first call there is none.
  virtual Result<std::optional<Plan>> join(int64_t after, const Report& report, Deadline deadline) = 0;
  virtual void attend(int64_t generation, Liaison::Callbacks callbacks) = 0;
  virtual void ignore() = 0;
  virtual void progress(int64_t steps_done) = 0;   // of this worker, in its next sign of life
  virtual void say_steps(int64_t steps_done) = 0;  // of the job, at once
  virtual bool stop_wanted() const = 0;
  virtual void say_running(int64_t generation, const Running& running) = 0;
  virtual Status say_done(int64_t generation, const std::string& result) = 0;
  virtual void say_fatal(const Error& error) = 0;
  // Whether a lost peer is followed by another generation.
  virtual bool recovers() const = 0;
  // For groups; null when the worker is alone.
  virtual std::shared_ptr<Store> store() = 0;
};

Result<std::unique_ptr<Link>> make_link(const WorkerContext& context, const std::string& layout, int64_t ranks);

}  // namespace tessera::resilience
