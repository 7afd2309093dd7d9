// Byte-level BPE as published in tokenizer.json: normalise, find added tokens, cut into words, merge byte
// pairs.
#pragma once

#include "data/added_tokens.h"
#include "data/bpe.h"
#include "data/normalizer.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"

namespace tessera::data {

class ByteLevelTokenizer : public Tokenizer {
 public:
  struct Parts {
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    BytePairs pairs;
    bool ignore_merges = false;                      // a word that is a token is taken whole
    std::unordered_map<std::string, int64_t> words;  // bytes -> id, for ignore_merges
    std::vector<AddedToken> added;
    std::vector<int64_t> prefix, suffix;                  // what add_special_tokens puts around a text
    std::vector<std::pair<int64_t, std::string>> tokens;  // id and bytes of the model's vocabulary
  };
  explicit ByteLevelTokenizer(Parts parts);

  std::vector<int64_t> encode(std::string_view text, const EncodeOptions& options) const override;

 private:
  struct Run;  // one call of encode()
  void encode_raw(Run& run, std::string_view text) const;
  void encode_normalized(Run& run, std::string_view text) const;
  void encode_text(Run& run, std::string_view text) const;
  void encode_word(Run& run, std::string_view word) const;

  Parts parts_;
  AddedTokens raw_added_, normalized_added_;
};

}  // namespace tessera::data
