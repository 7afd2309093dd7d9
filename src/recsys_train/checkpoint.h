// Checkpoints of a recommender's training. All rows are those after the gradients of the steps before `step`,
// and so are the dense weights, so any number of servers may go on from there:
//
//   RUN_DIR/checkpoints/step-T/server-I.rows   rows of server I: full, or what changed since its last file
//   RUN_DIR/checkpoints/step-T/dense.bin       float32: weights, then the optimizer's state (Trainer::state)
//   RUN_DIR/checkpoints/step-T/manifest.json   written last; a folder without it is no checkpoint
//
// A manifest names the files of every server from its last full one on, so a checkpoint may need those of
// earlier ones. Rows: recsys/snapshot.h.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recsys_train/trainer_memory.h"

namespace tessera::recsys_train {

struct Checkpoint {
  std::filesystem::path folder;                   // step-T
  Standing standing;                              // where training goes on
  int64_t batch = 0, parts = 0;                   // what a round of batches is made of
  std::vector<std::vector<std::string>> servers;  // files of each, below the folder of all checkpoints
  int64_t dense_floats = 0;
  std::string dense_hash;

  // Whole paths of those files.
  std::vector<std::string> files_of(size_t server) const;
};

std::filesystem::path checkpoint_folder(const std::filesystem::path& run_dir, int64_t step);

// Errors: those of the file system; then the checkpoint does not exist.
Status write_checkpoint(const Checkpoint& checkpoint, std::span<const float> dense);
// Errors: not_found; data_loss (torn, flipped, cut) with the file.
Result<Checkpoint> read_checkpoint(const std::filesystem::path& folder);
Result<std::vector<float>> read_dense(const Checkpoint& checkpoint);

// The newest one of a run; not_found with what to try.
Result<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run_dir);
// Fails when the run has checkpoints of later steps than `step`: they would be taken for its newest ones.
Status check_no_later_checkpoint(const std::filesystem::path& run_dir, int64_t step);
// Removes all but the newest `keep`, `resumed` (that of a run which goes on from it: roles that are replaced
// read it again; empty: none), and what these need.
void remove_old_checkpoints(const std::filesystem::path& run_dir, int64_t keep,
                            const std::filesystem::path& resumed = {});

}  // namespace tessera::recsys_train
