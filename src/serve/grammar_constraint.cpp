#include "serve/grammar_constraint.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "grammar/matcher.h"

namespace tessera::serve {

using grammar::Grammar;
using grammar::Matcher;

Vocabulary::Vocabulary(data::TokenizerPtr tokenizer, std::string_view marks)
    : tokenizer_(std::move(tokenizer)) {
  std::array<bool, 256> single{};
  for (int64_t id = 0; id < tokenizer_->vocab_size(); ++id) {
    std::string_view bytes = tokenizer_->bytes_of(id);
    if (bytes.empty()) continue;
    if (tokenizer_->is_special(id)) {
      if (marks.find(bytes) == std::string_view::npos) continue;
      marks_.insert(id);
    }
    tokens_.push_back({bytes, id, 0});
    if (bytes.size() == 1) single[static_cast<unsigned char>(bytes[0])] = true;
  }
  std::sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) { return a.bytes < b.bytes; });
  for (size_t i = 1; i < tokens_.size(); ++i) {
    auto end = std::mismatch(tokens_[i].bytes.begin(), tokens_[i].bytes.end(), tokens_[i - 1].bytes.begin(),
                             tokens_[i - 1].bytes.end());
    tokens_[i].shared = static_cast<size_t>(end.first - tokens_[i].bytes.begin());
  }
  has_all_bytes_ = std::all_of(single.begin(), single.end(), [](bool has) { return has; });
}

class GrammarMasks {
 public:
  struct Mask {
    std::vector<int64_t> tokens;     // that fit
    std::vector<int64_t> distances;  // from behind each to the text's end, in bytes
    int64_t farthest = 0;
  };

  GrammarMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const Vocabulary> vocabulary)
      : vocabulary_(std::move(vocabulary)), matcher_(std::move(grammar)) {}

  Matcher& matcher() { return matcher_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

  const Mask& mask_of(int configuration) {
    auto found = masks_.find(configuration);
    if (found != masks_.end()) return found->second;
    // Rarely met in practice: a text that passes ever new places, such as ever deeper lists.
    if (masks_.size() >= kMaxMasks) masks_.clear();
    return masks_.emplace(configuration, compute(configuration)).first->second;
  }

  int walk(int configuration, std::string_view bytes) {
    for (size_t i = 0; i < bytes.size() && configuration != Matcher::kDead; ++i)
      configuration = matcher_.step(configuration, static_cast<unsigned char>(bytes[i]));
    return configuration;
  }

 private:
  static constexpr size_t kMaxMasks = 512;

  Mask compute(int configuration) {
    Mask out;
    std::vector<int> passed = {configuration};  // behind each byte of the last token, as far as it fitted
    for (const Vocabulary::Token& token : vocabulary_->tokens()) {
      bool fails_early = passed.size() <= token.shared;
      if (fails_early) continue;  // an equal beginning did not fit
      passed.resize(token.shared + 1);
      for (size_t i = token.shared; i < token.bytes.size(); ++i) {
        int next = matcher_.step(passed.back(), static_cast<unsigned char>(token.bytes[i]));
        if (next == Matcher::kDead) break;
        passed.push_back(next);
      }
      if (passed.size() != token.bytes.size() + 1) continue;
      out.tokens.push_back(token.id);
      out.distances.push_back(matcher_.distance(passed.back()));
      out.farthest = std::max(out.farthest, out.distances.back());
    }
    return out;
  }

  std::shared_ptr<const Vocabulary> vocabulary_;
  Matcher matcher_;
  std::unordered_map<int, Mask> masks_;
};

namespace {

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<GrammarMasks> masks, GrammarLimits limits)
      : masks_(std::move(masks)), limits_(std::move(limits)), at_(masks_->matcher().start()) {
    bool fits = masks_->matcher().distance(at_) <= limits_.max_tokens;
    keeps_room_ = fits && masks_->vocabulary().has_all_bytes();
  }

  void restrict(TokenMask& mask) override {
    mask.forbid_all();
    if (at_ == Matcher::kDead) return;
    if (masks_->matcher().accepts(at_))
      for (int64_t token : limits_.end_tokens) mask.allow(token);
    if (num_accepted_ == 0 && starts_a_text()) return restrict_first(mask);
    const auto& allowed = masks_->mask_of(at_);
    for (size_t i = 0; i < allowed.tokens.size(); ++i)
      if (has_room(allowed.distances[i])) mask.allow(allowed.tokens[i]);
  }

  void accept(int64_t token) override {
    at_ = at_ == Matcher::kDead ? at_ : masks_->walk(at_, text_of(token));
    ++num_accepted_;
  }

 private:
  const data::Tokenizer& tokenizer() const { return masks_->vocabulary().tokenizer(); }
  // After the begin token some vocabularies drop the blank of the first token.
  bool starts_a_text() const { return tokenizer().bos_id() && limits_.previous == *tokenizer().bos_id(); }
  std::string text_of(int64_t token) const {
    return tokenizer().decode_one(token, num_accepted_ == 0 ? limits_.previous : -1,
                                  !masks_->vocabulary().is_mark(token));
  }
  bool has_room(int64_t distance) const {
    return !keeps_room_ || distance <= limits_.max_tokens - num_accepted_ - 1;
  }

  void restrict_first(TokenMask& mask) {
    for (const auto& token : masks_->vocabulary().tokens()) {
      std::string text = text_of(token.id);
      int next = text.empty() ? Matcher::kDead : masks_->walk(at_, text);
      if (next != Matcher::kDead && has_room(masks_->matcher().distance(next))) mask.allow(token.id);
    }
  }

  std::shared_ptr<GrammarMasks> masks_;
  GrammarLimits limits_;
  int at_;
  int64_t num_accepted_ = 0;
  bool keeps_room_ = false;
};

}  // namespace

std::shared_ptr<GrammarMasks> make_masks(std::shared_ptr<const Grammar> grammar,
                                         std::shared_ptr<const Vocabulary> vocabulary) {
  return std::make_shared<GrammarMasks>(std::move(grammar), std::move(vocabulary));
}

std::shared_ptr<TokenConstraint> make_constraint(std::shared_ptr<GrammarMasks> masks, GrammarLimits limits) {
  return std::make_shared<GrammarConstraint>(std::move(masks), std::move(limits));
}

}  // namespace tessera::serve
