// Saves a run without stopping it: start() copies this rank's pieces in memory and returns; a thread of the
// writer's own rounds, hashes and writes them, agrees with the other ranks and renames the result into place.
// Whatever happens on the way, the checkpoints that were there stay as they are.
//
//   CheckpointWriter writer({.directory = run / "checkpoints", .model = model}, std::move(group));
//   TESSERA_RETURN_IF_ERROR(writer.start({.step = step, .seed = seed, .work = work, .layout = layout},
//                                        trainer.state()));
//   ... train on ...
//   auto saved = writer.wait();
//
// Collective: every rank of the group makes a writer with equal options and starts the same saves in the same
// order. A failure on any rank fails the save on all, with that rank's error. The directory is shared by all
// ranks. Threads: one caller; abort() from any.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/file_plan.h"
#include "checkpoint/pieces.h"
#include "checkpoint/training_record.h"
#include "comm/group.h"

namespace tessera::checkpoint {

struct WriterOptions {
  std::filesystem::path directory;            // checkpoints are DIR/step-N
  ModelSpec model;                            // its inventory, and config.json when none is given
  int64_t keep = 3;                           // newest checkpoints that stay; 0: all
  int64_t max_file_bytes = int64_t{5} << 30;  // of one safetensors file
  int64_t extent_bytes = 64 << 20;            // of values under one hash
  double timeout_s = 1800;                    // that a rank waits for the slowest one
  std::string config_json;                    // text of config.json; empty: made from `model`
  std::vector<std::filesystem::path> copies;  // files copied in under their names, such as tokenizer.json
};

struct SaveReport {
  int64_t step = 0;
  std::filesystem::path path;
  double copy_s = 0;   // the caller was stopped for this long, waiting for the save before included
  double write_s = 0;  // in the background
  int64_t bytes = 0;   // written by this rank
};

class CheckpointWriter {
 public:
  // `group` belongs to the writer alone: its thread uses it while the trainer uses others.
  CheckpointWriter(WriterOptions options, std::unique_ptr<Group> group);
  ~CheckpointWriter();  // waits for a save under way

  // Waits for the save before, copies the primary pieces and starts a save in the precision of record.work. The
  // Status is that of the save before, unless wait() or poll() has already given it; the new one starts in any
  // case, so that ranks stay together.
  Status start(const TrainingRecord& record, std::span<const Piece> pieces);

  // What became of the last save: nothing while it runs, or when none was started.
  std::optional<Result<SaveReport>> poll();
  // The same, waiting for its end. Errors: invalid_argument when none was started; resource_exhausted: disk
  // full.
  Result<SaveReport> wait();

  // Makes a save under way fail. Any thread.
  void abort(Error error) { group_->abort(std::move(error)); }

 private:
  void join();
  Status copy_pieces(std::span<const Piece> pieces);
  void run();
  Result<SaveReport> save();
  Status write_into(const std::filesystem::path& temporary, const FilePlan& plan, int64_t& bytes);
  Status write_pieces(class ExtentWriter& writer) const;
  Status publish(const std::filesystem::path& temporary, const FilePlan& plan,
                 const std::vector<std::string>& written) const;

  WriterOptions options_;
  std::unique_ptr<Group> group_;
  std::thread thread_;
  std::atomic<bool> running_ = false;
  TrainingRecord record_;
  std::vector<Piece> staged_;  // copies of the primary pieces; their memory is used again by the next save
  Status copied_;
  double copy_s_ = 0;
  std::optional<Result<SaveReport>> last_;
  bool reported_ = true;
};

}  // namespace tessera::checkpoint
