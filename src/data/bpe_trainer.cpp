#include "data/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "data/added_tokens.h"
#include "data/byte_level.h"
#include "data/pair_merger.h"

namespace tessera::data {
namespace {

using Json = nlohmann::ordered_json;
constexpr int64_t kReportBytes = 1 << 18;
constexpr int64_t kProgressMerges = 16;

// Tokens by id, in the visible alphabet.
struct LearntVocabulary {
  std::vector<std::string> tokens;
  std::array<int32_t, 256> byte_ids{};
  std::vector<std::string> merges;  // "left right"
};

LearntVocabulary first_tokens(const std::vector<std::string>& special) {
  LearntVocabulary vocabulary{.tokens = special};
  std::map<std::string, int> by_character;  // UTF-8 sorts as code points do
  for (int byte = 0; byte < 256; ++byte) {
    char raw = static_cast<char>(byte);
    by_character[visible_of_bytes({&raw, 1})] = byte;
  }
  for (const auto& [character, byte] : by_character) {
    vocabulary.byte_ids[static_cast<size_t>(byte)] = static_cast<int32_t>(vocabulary.tokens.size());
    vocabulary.tokens.push_back(character);
  }
  return vocabulary;
}

Json added_token(int64_t id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

std::string tokenizer_json(const LearntVocabulary& vocabulary, size_t num_special) {
  Json ids = Json::object(), added = Json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) ids[vocabulary.tokens[id]] = id;
  for (size_t id = 0; id < num_special; ++id)
    added.push_back(added_token(static_cast<int64_t>(id), vocabulary.tokens[id]));
  Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false},
                {"vocab", ids},
                {"merges", vocabulary.merges}};
  Json root = {{"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
               {"added_tokens", added},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
               {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
  return root.dump(1) + "\n";
}

std::string tokenizer_config_json(const std::string& end_of_text) {
  Json root = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"bos_token", end_of_text},
               {"eos_token", end_of_text},
               {"clean_up_tokenization_spaces", false}};
  return root.dump(1) + "\n";
}

void learn_merges(PairMerger& merger, const BpeTrainer::Options& options, LearntVocabulary& vocabulary,
                  const BpeTrainer::Progress& progress) {
  std::unordered_map<std::string, int32_t> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    ids[vocabulary.tokens[id]] = static_cast<int32_t>(id);
  auto first = static_cast<int64_t>(vocabulary.tokens.size());
  while (static_cast<int64_t>(vocabulary.tokens.size()) < options.vocab_size) {
    auto pair = merger.most_frequent();
    if (!pair || pair->count < options.min_count) return;
    std::string left = vocabulary.tokens[static_cast<size_t>(pair->left)];
    std::string right = vocabulary.tokens[static_cast<size_t>(pair->right)];
    // Two pairs may spell the same token (a bc, ab c): the second leads to the id of the first.
    auto [found, is_new] = ids.try_emplace(left + right, static_cast<int32_t>(vocabulary.tokens.size()));
    merger.merge(*pair, found->second);
    vocabulary.merges.push_back(left + " " + right);
    if (is_new) vocabulary.tokens.push_back(left + right);
    auto done = static_cast<int64_t>(vocabulary.tokens.size()) - first;
    if (progress && done % kProgressMerges == 0) progress(done, options.vocab_size - first);
  }
}

}  // namespace

Result<BpeTrainer> BpeTrainer::create(Options options) {
  auto least = static_cast<int64_t>(options.special_tokens.size()) + 256;
  if (options.special_tokens.empty()) return invalid("a tokenizer needs a special token that ends a document");
  if (options.vocab_size < least)
    return invalid("a vocabulary of {} tokens is too small: 256 bytes and {} special tokens need {}",
                   options.vocab_size, options.special_tokens.size(), least);
  TESSERA_ASSIGN_OR_RETURN(auto pattern, SplitPattern::compile(kGpt2Pattern));
  return BpeTrainer(std::move(options), std::move(pattern));
}

void BpeTrainer::add_text(std::string_view text, const Progress& progress) {
  AddedTokens borders;
  for (const auto& token : options_.special_tokens) borders.add({.content = token, .special = true});
  auto total = static_cast<int64_t>(text.size());
  borders.split(text, true, [&](std::string_view piece, int64_t id) {
    if (id < 0) add_plain(piece, piece.data() - text.data(), total, progress);
  });
  if (progress) progress(total, total);
}

void BpeTrainer::add_plain(std::string_view text, int64_t offset, int64_t total, const Progress& progress) {
  int64_t next_report = kReportBytes;
  pattern_.split(text, [&](std::string_view word, bool) {
    if (auto found = counts_.find(word); found != counts_.end()) {
      ++found->second;
    } else {
      counts_.emplace(word, 1);
    }
    auto done = word.data() - text.data();
    if (!progress || done < next_report) return;
    progress(offset + done, total);
    next_report = done + kReportBytes;
  });
}

Result<TrainedTokenizer> BpeTrainer::train(const Progress& progress) const {
  if (counts_.empty()) return invalid("there is no text to learn a vocabulary from");
  LearntVocabulary vocabulary = first_tokens(options_.special_tokens);
  PairMerger merger;
  for (const auto& [word, count] : counts_) {
    std::vector<int32_t> symbols;
    for (char byte : word) symbols.push_back(vocabulary.byte_ids[static_cast<unsigned char>(byte)]);
    merger.add_word(std::move(symbols), count);
  }
  merger.start();

  learn_merges(merger, options_, vocabulary, progress);
  return TrainedTokenizer{.tokenizer_json = tokenizer_json(vocabulary, options_.special_tokens.size()),
                          .tokenizer_config_json = tokenizer_config_json(options_.special_tokens.front()),
                          .vocab_size = static_cast<int64_t>(vocabulary.tokens.size()),
                          .distinct_words = static_cast<int64_t>(counts_.size())};
}

}  // namespace tessera::data
