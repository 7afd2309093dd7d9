// The text a tokenizer or a model learns from: files and folders of UTF-8, cut into documents. All of it is
// checked before the first document is handed out, so that a bad byte in the last file costs seconds and no
// half result.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera::data {

struct TextOptions {
  std::string separator;  // between the documents of a file; empty: a file is a document
  // Above 0: about this much text, from files chosen by a hash of their names, so that the part resembles the
  // whole; the last one is cut.
  int64_t max_bytes = 0;
};

class TextFiles {
 public:
  // Inputs: files, or folders, in which *.h, *.hpp, *.cpp, *.py, *.txt and *.md are taken, in order of their
  // names, empty ones left out.
  // Errors, naming the file: not_found; invalid_argument for empty files, for folders without text, and for
  // bytes that are no UTF-8, with their offset.
  static Result<TextFiles> open(const std::vector<std::filesystem::path>& inputs, TextOptions options);

  int64_t bytes() const { return bytes_; }
  int64_t num_documents() const { return num_documents_; }
  int64_t num_files() const { return static_cast<int64_t>(files_.size()); }

  // Every document that is not empty, in order; stops at the first error. Errors: files changed meanwhile.
  using Visit = std::function<Status(std::string_view document)>;
  Status for_each_document(const Visit& visit) const;

 private:
  struct File {
    std::filesystem::path path;
    std::string name;  // inside the folder given, or of the file: the same on every machine
    int64_t bytes = 0;
  };
  static Status add_folder(const std::filesystem::path& folder, std::vector<File>& files);
  static Status add_file(const std::filesystem::path& path, std::vector<File>& files);
  void choose_part(std::vector<File> files);
  Result<std::string> read_checked(const File& file) const;
  std::vector<std::string_view> documents_of(std::string_view text) const;

  TextOptions options_;
  std::vector<File> files_;
  int64_t bytes_ = 0, num_documents_ = 0;
};

}  // namespace tessera::data
