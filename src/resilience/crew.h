// The worker processes of one launcher: their output by lines, their signs of life, their end.
//
// Output of a worker that has not joined yet is held back: when a mistake in the configuration stops all
// workers at once, the user reads it once and not N times. Threads: one.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "resilience/process.h"
#include "resilience/protocol.h"

namespace tessera::resilience {

struct OutputLine {
  int64_t worker = 0;
  bool error = false;  // from standard error
  std::string text;
};
using OutputSink = std::function<void(const OutputLine&)>;

struct CrewMember {
  CrewMember(int64_t worker, Process started)
      : id(worker), process(std::move(started)), output(process.output()), errors(process.errors()) {}

  int64_t id;
  Process process;
  LineReader output, errors;
  bool joined = false;  // has given a sign of life
  Beat beat;            // the last one
  Clock::time_point alive_at = Clock::now();
  std::string verdict;  // why the launcher killed it; "" when it did not
  std::vector<OutputLine> held_back;
  std::ofstream log;

  double silence() const { return seconds_since(alive_at); }
};

class Crew {
 public:
  Crew(OutputSink sink, std::filesystem::path log_folder);

  Status start(int64_t worker, const ProcessOptions& options);
  // Waits at most `seconds` for output or an end, and passes on what was said.
  void wait(double seconds);
  // Those that have ended since the last call, with their output passed on.
  std::vector<std::pair<std::unique_ptr<CrewMember>, ExitStatus>> reap();
  // Reads signs of life. A gap in which this launcher itself did not run counts for nobody.
  void listen(Store& store);
  void signal_all(int number);
  void release_output(CrewMember& member);

  std::map<int64_t, std::unique_ptr<CrewMember>>& members() { return members_; }
  int64_t size() const { return static_cast<int64_t>(members_.size()); }

 private:
  void pass_on(CrewMember& member);

  OutputSink sink_;
  std::filesystem::path log_folder_;
  std::map<int64_t, std::unique_ptr<CrewMember>> members_;
  Clock::time_point listened_at_ = Clock::now();
};

}  // namespace tessera::resilience
