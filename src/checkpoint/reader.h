// Reads a checkpoint by boxes, in whatever layout the reading ranks have: ranged reads of just what is asked
// for, with the hash of every extent checked the first time a box touches it.
//
//   TESSERA_ASSIGN_OR_RETURN(auto newest, open_newest_intact(run / "checkpoints"));
//   for (const Error& why : newest.skipped) log(LogLevel::warn, "{}", why.message);
//   TESSERA_RETURN_IF_ERROR(newest.reader->check_against(inventory(model)));
//   TESSERA_RETURN_IF_ERROR(trainer.restore(*newest.reader));
//
// Errors: not_found (no checkpoint, no such tensor), data_loss (a flipped bit, a truncated or missing file:
// names file, tensor and rows, and the older checkpoint to use), invalid_argument (another model, a newer
// format). Threads: one; open the directory once per thread.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/directory.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/pieces.h"
#include "checkpoint/training_record.h"

namespace tessera::checkpoint {

enum class Verify {
  none,     // sizes and headers only
  touched,  // every extent when a box first touches it
  full,     // everything, at open
};

class CheckpointReader : public PieceReader {
 public:
  // `directory` is one checkpoint, DIR/step-N.
  static Result<std::unique_ptr<CheckpointReader>> open(const std::filesystem::path& directory,
                                                        Verify verify = Verify::touched);

  Status read(const std::string& tensor, StateKind kind, const Extent& box, at::Tensor& out) override;

  // Whether every tensor of the inventory is there with its shape; one Error names the first differences.
  Status check_against(const std::vector<TensorSpec>& inventory) const;
  // Checks every hash; all damages, not only the first.
  std::vector<Error> verify();

  const TrainingRecord& training() const { return training_; }
  const Manifest& manifest() const { return manifest_; }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  CheckpointReader(std::filesystem::path directory, Manifest manifest);
  static Result<std::unique_ptr<CheckpointReader>> open_unguarded(const std::filesystem::path& directory,
                                                                  Verify verify);
  Status open_files();
  Result<std::string> read_small(const std::string& name) const;
  Status verify_head(const ManifestFile& file, const OpenFile& opened) const;
  Status verify_extent(size_t array, size_t extent, std::vector<std::byte>& buffer) const;
  Status read_part(const ManifestArray& array, const Extent& part, const Extent& target_box,
                   std::byte* target) const;
  Error damage(std::string_view what) const;

  std::filesystem::path directory_;
  Manifest manifest_;
  TrainingRecord training_;
  Verify mode_ = Verify::touched;
  std::vector<OpenFile> files_;                               // as in manifest_.files
  std::map<std::pair<std::string, Content>, size_t> places_;  // of arrays
  std::vector<std::vector<bool>> verified_;                   // by array and extent
};

// The newest checkpoint that opens without damage, and why newer ones were passed over. Errors: not_found, when
// no checkpoint was ever published (a fresh start); data_loss, when all are damaged. When ranks must agree,
// call it on one and let the others open() the same step.
struct NewestIntact {
  std::unique_ptr<CheckpointReader> reader;
  std::vector<Error> skipped;
};
Result<NewestIntact> open_newest_intact(const std::filesystem::path& directory, Verify verify = Verify::full);

}  // namespace tessera::checkpoint
