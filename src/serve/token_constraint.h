// What a grammar, a JSON schema or a list of choices asks of the sampler: which tokens may come next. The
// engine owns one for each answer and calls it in the order of the answer's tokens, once for each place of a
// token, also when tokens were guessed ahead or the request lost its cache for a while.
//
// Threads: the engine's, one call at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera::serve {

// One bit for each token of the vocabulary, all set at first.
class TokenMask {
 public:
  explicit TokenMask(int64_t vocab) : words_(static_cast<size_t>((vocab + 63) / 64), ~uint64_t{0}) {}

  void forbid_all() { words_.assign(words_.size(), 0); }
  void allow(int64_t token) { words_[word(token)] |= bit(token); }
  void forbid(int64_t token) { words_[word(token)] &= ~bit(token); }
  bool allows(int64_t token) const { return (words_[word(token)] & bit(token)) != 0; }
  // For who has masks ready made: token 64 * i + b is bit b of word i.
  std::vector<uint64_t>& words() { return words_; }

 private:
  static size_t word(int64_t token) { return static_cast<size_t>(token) / 64; }
  static uint64_t bit(int64_t token) { return uint64_t{1} << (static_cast<uint64_t>(token) % 64); }
  std::vector<uint64_t> words_;
};

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Forbids in `mask`, which allows all, what cannot come next. End tokens are tokens like any other: allow
  // them where the text may end. When nothing is left, the answer ends ("stop").
  virtual void restrict(TokenMask& mask) = 0;
  // `token` was chosen.
  virtual void accept(int64_t token) = 0;
};

}  // namespace tessera::serve
