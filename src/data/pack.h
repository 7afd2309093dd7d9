// Text to token files: one for training and one held out. Each document ends with the tokenizer's end token,
// when it has one; special tokens spelt out in the text are text.
//
// Held out are whole documents, chosen by a hash of their number. With so few documents that this would be a
// lottery, it is the last part of each document instead.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "core/result.h"
#include "data/text_files.h"
#include "data/tokenizer.h"

namespace tessera::data {

struct PackFiles {
  std::filesystem::path train, valid;  // prefixes of .bin and .idx
};

// "x" stands for x-train and x-valid; a folder, or a name ending in /, for train and valid in it.
PackFiles pack_files(const std::filesystem::path& prefix);

struct PackedPart {
  std::filesystem::path prefix;
  int64_t documents = 0, tokens = 0, text_bytes = 0;
  double unigram_entropy_nats = 0;  // of its own tokens
};

struct PackResult {
  PackedPart train;
  std::optional<PackedPart> valid;
  bool split_by_document = true;
  double unigram_entropy_nats = 0;  // of all tokens
  int64_t largest_id = 0;
};

struct PackOptions {
  PackFiles files;
  double held_out = 0;                               // share of the text, 0 to below 1
  std::function<void(int64_t bytes)> progress = {};  // text done
};

// Errors leave earlier files as they were.
Result<PackResult> pack(const TextFiles& text, const Tokenizer& tokenizer, const PackOptions& options);

}  // namespace tessera::data
