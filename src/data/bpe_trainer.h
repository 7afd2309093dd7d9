// Learns a byte-level BPE vocabulary from text: the most frequent neighbouring pair becomes a token, again and
// again. Words are counted once, pair counts are kept up to date, so tens of megabytes take seconds on a core.
//
//   BpeTrainer trainer(std::move(SplitPattern::compile(kGpt2Pattern)).value(), {.vocab_size = 4096});
//   trainer.add_text(text);
//   Result<TrainedTokenizer> trained = trainer.train();
//
// The result is a function of the texts' words alone, and equals what Hugging Face's BpeTrainer learns from
// them: ids are the special tokens, the 256 bytes in order of their visible character, then the merges; of
// equally frequent pairs the one with the smaller ids goes first.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/result.h"
#include "data/regex_split.h"

namespace tessera::data {

inline constexpr std::string_view kEndOfText = "<|endoftext|>";

struct TrainedTokenizer {
  std::string tokenizer_json;         // for Hugging Face tokenizers and load_tokenizer
  std::string tokenizer_config_json;  // names the begin and end token
  int64_t vocab_size = 0;             // less than asked for when the text has no more repeated pairs
  int64_t distinct_words = 0;
};

class BpeTrainer {
 public:
  struct Options {
    int64_t vocab_size = 4096;  // special tokens and the 256 bytes included
    int64_t min_count = 2;      // a pair seen less often never becomes a token
    std::vector<std::string> special_tokens = {std::string(kEndOfText)};  // the first ends a document
  };
  using Progress = std::function<void(int64_t done, int64_t total)>;

  // Cuts words with GPT-2's pattern. Errors: a vocabulary too small for the bytes and special tokens.
  static Result<BpeTrainer> create(Options options);

  // Counts the words of one text. Special tokens in it are borders and count for nothing.
  // progress: bytes of this text.
  void add_text(std::string_view text, const Progress& progress = {});

  // progress: merges. Errors: no text was added.
  Result<TrainedTokenizer> train(const Progress& progress = {}) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  BpeTrainer(Options options, SplitPattern pattern)
      : options_(std::move(options)), pattern_(std::move(pattern)) {}
  void add_plain(std::string_view text, int64_t offset, int64_t total, const Progress& progress);

  Options options_;
  SplitPattern pattern_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> counts_;
};

}  // namespace tessera::data
