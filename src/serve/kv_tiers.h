// Places for keys and values that have left the cache and may come back: host memory, then a file on disk. What
// goes where is the policy's decision (batching/kv_cache.h); this carries it out.
//
// The file has no name: it goes with the process, whatever ends it. Its room is taken at the start, so that a
// full disk is known before requests come.
// Threads: one at a time.
#pragma once

#include <filesystem>
#include <span>

#include "batching/kv_cache.h"
#include "core/result.h"
#include "serve/model.h"

namespace tessera::serve {

class KvTiers {
 public:
  struct Options {
    int64_t host_blocks = 0, disk_blocks = 0;
    std::filesystem::path folder = {};  // of the file; empty: the system's for temporary files
  };

  // Errors: no memory for the host tier. A disk without room is no error here: see disk().
  static Result<KvTiers> make(const KvCache& cache, const Options& options);
  KvTiers(KvTiers&& other) noexcept;
  KvTiers& operator=(KvTiers&&) = delete;
  ~KvTiers();

  // Why the disk tier cannot be used, with the bytes that it needs.
  const Status& disk() const { return disk_; }

  // Copies blocks, in order. Errors: the disk's; blocks behind it are not moved then.
  Status move(std::span<const batching::KvMove> moves, KvCache& cache);

 private:
  KvTiers() = default;
  Status open_file(const Options& options);
  Status read(batching::BlockId block);   // into staging_
  Status write(batching::BlockId block);  // from staging_
  Status move_one(const batching::KvMove& move, KvCache& cache);

  KvCache host_;
  at::Tensor staging_;  // one block: the bytes of every layer
  int file_ = -1;
  Status disk_;
};

// One block as a run of bytes: all layers of this rank, one behind the other.
int64_t block_bytes(const KvCache& cache);
void read_block(const KvCache& cache, batching::BlockId block, std::span<std::byte> bytes);
void write_block(std::span<const std::byte> bytes, KvCache& cache, batching::BlockId block);

// Whether any move reads or writes the disk.
bool touches_disk(std::span<const batching::KvMove> moves);

}  // namespace tessera::serve
