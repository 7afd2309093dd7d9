// A child process that the launcher can lose sight of in no way: its end wakes a poll() at once (pidfd), its
// lines are captured, it dies with its parent (PR_SET_PDEATHSIG), and signals reach its whole process group.
//
// Threads: start() must be called from a thread that outlives the child, or the child is killed with the
// thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::resilience {

struct ExitStatus {
  int code = 0;    // when it ended by itself
  int signal = 0;  // that killed it; 0: none
  bool success() const { return code == 0 && signal == 0; }
  std::string describe() const;  // "exit status 1", "killed by signal 9 (Killed)"
};

struct ProcessOptions {
  std::vector<std::string> command;                // [0] is looked up in PATH when it has no slash
  std::map<std::string, std::string> environment;  // added to the parent's
  std::string secret;  // readable from the descriptor that TESSERA_TOKEN_FD names; at most 4 KiB
};

class Process {
 public:
  static Result<Process> start(const ProcessOptions& options);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();  // kills it, if it still runs

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_; }    // readable once it has ended
  int output() const { return output_; }  // standard output; non-blocking
  int errors() const { return errors_; }
  void signal(int number);  // to its process group
  std::optional<ExitStatus> ended();

 private:
  Process() = default;
  pid_t pid_ = -1;
  int pidfd_ = -1, output_ = -1, errors_ = -1;
  std::optional<ExitStatus> status_;
};

// Whole lines from a non-blocking descriptor.
class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}
  // Lines that have become complete, without their ends; at the end of the stream also an unfinished one.
  std::vector<std::string> read();
  bool closed() const { return closed_; }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
  std::string pending_;
  bool closed_ = false;
};

}  // namespace tessera::resilience
