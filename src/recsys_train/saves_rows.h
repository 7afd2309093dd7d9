// Embedding servers (servers.h) whose rows can be written to files: those of this process.
#pragma once

#include <functional>
#include <string>

#include "recsys/store.h"

namespace tessera::recsys_train {

class SavesRows {
 public:
  virtual ~SavesRows() = default;
  virtual int64_t num_snapshots() const = 0;  // one for each server
  // A snapshot of each server (Store::save) in the file that `path_of` names; beside gets and puts.
  virtual Status save(recsys::Store::SnapshotKind kind,
                      const std::function<std::string(int64_t server)>& path_of) = 0;
};

}  // namespace tessera::recsys_train
