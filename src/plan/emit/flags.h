// Flags of a command, one a line, and comments above it. Threads: values.
#pragma once

#include <fmt/format.h>

#include <string>

namespace tessera::plan {

class Flags {
 public:
  explicit Flags(std::string command) : command_(std::move(command)) {}

  void flag(std::string_view name) { lines_ += fmt::format(" \\\n  {}", name); }
  template <class T>
  void set(std::string_view name, const T& value) {
    lines_ += fmt::format(" \\\n  {} {}", name, value);
  }
  // Above the command, because a comment would end its continued line.
  void note(std::string_view text) { notes_ += fmt::format("# {}\n", text); }
  std::string text() const { return notes_ + command_ + lines_ + "\n"; }

 private:
  std::string command_, lines_, notes_;
};

// One process a device, hosts of eight.
inline std::string torchrun(int64_t devices) {
  int64_t each = devices < 8 ? devices : 8;
  return fmt::format("torchrun --nproc-per-node {} --nnodes {}", each, (devices + each - 1) / each);
}

}  // namespace tessera::plan
