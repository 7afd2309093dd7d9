// Files whose pages are the memory of a store, so that rows outlive the process: ordinary files (the page cache
// keeps them), files of a tmpfs, or memory files of a process that lives longer, under /proc/PID/fd/N.
// A file is locked while a process maps it: a second store on the same rows is refused, and a killed process
// leaves no lock behind.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recsys/region.h"

namespace tessera::recsys {

struct SharedFile {
  Region region;
  bool is_new = false;  // was empty: all bytes are zero
};
// Makes the file when it is missing. Only pages that are touched take room.
Result<SharedFile> open_shared_file(const std::string& path, int64_t bytes);

// Holds memory files for others: paths() are opened by processes of the same user while this object lives. For
// the launcher, whose servers die and come back.
class MemoryKeeper {
 public:
  static Result<std::unique_ptr<MemoryKeeper>> create(int64_t files);
  MemoryKeeper() = default;
  MemoryKeeper(const MemoryKeeper&) = delete;
  MemoryKeeper& operator=(const MemoryKeeper&) = delete;
  ~MemoryKeeper();
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  std::vector<int> descriptors_;
  std::vector<std::string> paths_;
};

}  // namespace tessera::recsys
