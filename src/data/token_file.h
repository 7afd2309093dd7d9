// Megatron's token files: PREFIX.bin holds the tokens of all documents one after another, PREFIX.idx says where
// each begins. Little-endian.
//
//   idx  0  "MMIDIDX\0\0"        9 bytes
//        9  version 1            uint64
//       17  kind of token        uint8: 8 is uint16 (vocabularies below 65500), 4 is int32
//       18  number of sequences  uint64 (here each document is one sequence)
//       26  length of doc_idx    uint64: documents + 1
//       34  lengths              int32 for each sequence, in tokens
//           offsets              int64 for each sequence, in bytes of the .bin
//           doc_idx              int64: the first sequence of each document, and the number of sequences
//   bin     tokens
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/result.h"

namespace tessera::data {

enum class TokenType : uint8_t { int32 = 4, uint16 = 8 };

inline TokenType token_type_for(int64_t vocab_size) {
  return vocab_size < 65500 ? TokenType::uint16 : TokenType::int32;
}

// Writes to temporary files beside the target; finish() puts both in place, the .idx last. Without finish()
// nothing is left behind.
class TokenFileWriter {
 public:
  static Result<TokenFileWriter> create(const std::filesystem::path& prefix, int64_t vocab_size);
  TokenFileWriter(TokenFileWriter&&) noexcept;
  TokenFileWriter& operator=(TokenFileWriter&&) = delete;
  ~TokenFileWriter();

  // Errors: an id outside the vocabulary, a full disk.
  Status add_document(std::span<const int64_t> ids);
  Status finish();

  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_documents() const { return static_cast<int64_t>(lengths_.size()); }

 private:
  TokenFileWriter(std::filesystem::path prefix, int64_t vocab_size, std::FILE* file);
  std::filesystem::path temporary() const;
  std::string index() const;

  std::filesystem::path prefix_;
  int64_t vocab_size_;
  TokenType type_;
  std::FILE* file_;
  std::vector<int32_t> lengths_;
  int64_t num_tokens_ = 0;
  std::vector<std::byte> buffer_;
};

// A token file mapped into memory. Cheap to copy; threads: any.
class TokenFile {
 public:
  // Checks every length and offset against the size of the .bin.
  // Errors: not_found; data_loss with file, byte and what was expected.
  static Result<TokenFile> open(const std::filesystem::path& prefix);

  int64_t num_documents() const { return num_documents_; }
  int64_t num_tokens() const { return num_tokens_; }
  TokenType type() const { return type_; }
  const std::filesystem::path& prefix() const { return prefix_; }

  // First token of a document in the whole file; num_tokens() for num_documents().
  int64_t start(int64_t document) const;
  int64_t length(int64_t document) const { return start(document + 1) - start(document); }
  // Copies tokens [from, from + out.size()) of a document. REQUIRES: they exist.
  void read(int64_t document, int64_t from, std::span<int64_t> out) const;
  // How often each id occurs, up to the largest; reads the whole file.
  std::vector<int64_t> counts_by_id() const;

 private:
  class Mapping;
  static Result<std::shared_ptr<const Mapping>> map(const std::filesystem::path& path);
  Status read_header();
  Status check_sequences();
  int64_t length_of_sequence(int64_t sequence) const;
  int64_t offset_of_sequence(int64_t sequence) const;
  const std::byte* index_at(size_t byte) const;

  std::filesystem::path prefix_;
  std::shared_ptr<const Mapping> tokens_, index_;
  TokenType type_ = TokenType::uint16;
  int64_t num_sequences_ = 0, num_documents_ = 0, num_tokens_ = 0;
};

}  // namespace tessera::data
