// The launcher of a job: starts workers, owns store and membership (never a rank: rank 0 may die like any
// other), sees a worker's end in milliseconds and its silence in seconds, and forms the next generation from
// what is left.
//
// A lost worker is replaced while restarts are left; else the job goes on with the best layout of equal work
// that fits, and workers left over wait as spares. A restart counts once per generation, however many workers
// it starts.
//
// Errors end the job: the command cannot be run, a worker reports an error of the user's input, nobody is left.
// Threads: launch() from one thread, which must live as long as the workers.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "resilience/crew.h"
#include "resilience/event.h"

namespace tessera::resilience {

// Filled by a signal handler. The first request asks the workers to finish their step and save, the second ends
// them.
struct StopRequest {
  std::atomic<int> signal = 0, count = 0;
};

struct LaunchOptions {
  int64_t workers = 1;               // ranks of the job
  int64_t spares = 0;                // further workers, started at once, that take over without a start-up
  int64_t max_restarts = 3;          // rounds in which lost workers are replaced by new processes
  std::vector<std::string> command;  // of a worker
  std::function<std::map<std::string, std::string>(int64_t worker)> environment;  // added for one worker
  std::filesystem::path run_dir;      // events.jsonl and logs/worker-N.log; empty: none
  std::string address = "127.0.0.1";  // where the store listens
  double silence_s = 3;               // without a sign of life, a worker is killed
  double start_s = 120;               // the same before its first one
  double stop_s = 30;                 // for an orderly stop

  std::function<void(const Event&)> on_event;
  // `rank` is the worker's in the present generation, -1 for a spare or while forming the first one.
  std::function<void(const OutputLine&, int64_t rank)> on_line;
  const StopRequest* stop = nullptr;
};

struct LaunchResult {
  std::string result;  // JSON that rank 0 left
  std::vector<Event> events;
  int64_t generations = 1, restarts = 0;
  bool stopped = false;  // by LaunchOptions::stop
};

Result<LaunchResult> launch(const LaunchOptions& options);

}  // namespace tessera::resilience
