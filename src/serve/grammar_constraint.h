// Holds an answer to a grammar: of each token all bytes must fit. The last tokens of an answer are kept for its
// end, so that it is complete when max_tokens are reached ("length"), if the vocabulary has a token for every
// byte and max_tokens are enough for the shortest text.
//
// Cost: what a token may be is asked of the grammar once for each configuration and kept, for all answers of a
// call. Threads: make() on any; the constraints of all answers of an engine one at a time.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "data/tokenizer.h"
#include "grammar/grammar.h"
#include "serve/token_constraint.h"

namespace tessera::serve {

// The tokens of a vocabulary in the order of their bytes, so that equal beginnings are read once. Special ones
// are no text and left out, but for those that stand in `marks`: with them a model marks parts of its answers.
class Vocabulary {
 public:
  explicit Vocabulary(data::TokenizerPtr tokenizer, std::string_view marks = {});

  struct Token {
    std::string_view bytes;  // of the tokenizer
    int64_t id;
    size_t shared;  // bytes that it has in common with the one before
  };
  const std::vector<Token>& tokens() const { return tokens_; }
  bool has_all_bytes() const { return has_all_bytes_; }
  bool is_mark(int64_t id) const { return marks_.contains(id); }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  data::TokenizerPtr tokenizer_;
  std::vector<Token> tokens_;
  std::unordered_set<int64_t> marks_;
  bool has_all_bytes_ = false;
};

class GrammarMasks;  // a grammar's configurations and what may follow them

std::shared_ptr<GrammarMasks> make_masks(std::shared_ptr<const grammar::Grammar> grammar,
                                         std::shared_ptr<const Vocabulary> vocabulary);

struct GrammarLimits {
  std::vector<int64_t> end_tokens;  // allowed where the text may end
  int64_t max_tokens = 0;
  int64_t previous = -1;  // last token of the prompt
};
std::shared_ptr<TokenConstraint> make_constraint(std::shared_ptr<GrammarMasks> masks, GrammarLimits limits);

}  // namespace tessera::serve
