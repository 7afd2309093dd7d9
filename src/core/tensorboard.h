// Scalars that TensorBoard shows, as event files (TFRecord frames around Event protobufs, written here by hand:
// a handful of fields needs no protobuf library).
//
//   TESSERA_ASSIGN_OR_RETURN(auto board, TensorBoardWriter::open(run_dir / "tensorboard"));
//   TESSERA_RETURN_IF_ERROR(board->scalar("train/loss", 6.02, step));
//
// Each open() makes a new file, so a resumed run adds one beside the old. Threads: one.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string_view>

#include "core/result.h"

namespace tessera {

class TensorBoardWriter {
 public:
  // Creates the folder when needed. Errors: of the file system, with the path.
  static Result<std::unique_ptr<TensorBoardWriter>> open(const std::filesystem::path& folder);
  ~TensorBoardWriter();

  // Appends one point, dated now; a reader sees it after flush() or close.
  Status scalar(std::string_view tag, double value, int64_t step);
  Status flush();

 private:
  TensorBoardWriter(std::filesystem::path path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  Status write_record(std::string_view event);

  std::filesystem::path path_;
  std::FILE* file_;
};

}  // namespace tessera
