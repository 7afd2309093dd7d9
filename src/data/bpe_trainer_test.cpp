#include "data/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "data/pair_merger.h"
#include "data/tokenizer.h"

namespace tessera::data {
namespace {

using nlohmann::json;
using Words = std::vector<std::pair<std::vector<int32_t>, int64_t>>;

// The definition: count all pairs anew before every merge.
std::vector<std::pair<int32_t, int32_t>> merges_by_recounting(Words words, int num_merges, int32_t next_id) {
  std::vector<std::pair<int32_t, int32_t>> merges;
  while (static_cast<int>(merges.size()) < num_merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [symbols, count] : words)
      for (size_t i = 0; i + 1 < symbols.size(); ++i) counts[{symbols[i], symbols[i + 1]}] += count;
    std::pair<int32_t, int32_t> best;
    int64_t most = 0;
    for (const auto& [pair, count] : counts)
      if (count > most) best = pair, most = count;
    if (most == 0) break;
    for (auto& [symbols, count] : words)
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        if (symbols[i] != best.first || symbols[i + 1] != best.second) continue;
        symbols[i] = next_id;
        symbols.erase(symbols.begin() + static_cast<int64_t>(i) + 1);
      }
    merges.push_back(best);
    ++next_id;
  }
  return merges;
}

TEST(PairMerger, IncrementalCountsEqualRecounting) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    Words words;
    for (int i = 0; i < 30; ++i) {
      std::vector<int32_t> symbols(1 + random() % 12);
      for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random() % 4);
      words.emplace_back(symbols, 1 + random() % 5);
    }
    PairMerger merger;
    for (const auto& [symbols, count] : words) merger.add_word(symbols, count);
    merger.start();
    std::vector<std::pair<int32_t, int32_t>> merges;
    for (int32_t id = 4; merges.size() < 40; ++id) {
      auto pair = merger.most_frequent();
      if (!pair) break;
      merger.merge(*pair, id);
      merges.emplace_back(pair->left, pair->right);
    }
    ASSERT_EQ(merges, merges_by_recounting(words, 40, 4)) << "round " << round;
  }
}

TEST(BpeTrainer, LearnsTheTextbookExample) {
  // Sennrich et al. 2016: low 5, lower 2, newest 6, widest 3. The first merges are e s, es t, l o, lo w.
  auto trainer = BpeTrainer::create({.vocab_size = 257 + 4}).value();
  std::string text;
  for (auto [word, count] : {std::pair{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}})
    for (int i = 0; i < count; ++i) text += std::string(word) + "\n";
  trainer.add_text(text);
  json trained = json::parse(trainer.train().value().tokenizer_json);
  EXPECT_EQ(trained["model"]["merges"], (json{"e s", "es t", "l o", "lo w"}));
}

TEST(BpeTrainer, TrainedVocabularyLoadsAndRoundTrips) {
  auto trainer = BpeTrainer::create({.vocab_size = 300}).value();
  trainer.add_text("the cat sat on the mat, the cat sat.<|endoftext|>the dog and the cat\n\n\n\n");
  auto trained = trainer.train().value();
  auto tokenizer = parse_tokenizer_json(trained.tokenizer_json, "trained").value();
  EXPECT_EQ(tokenizer->vocab_size(), trained.vocab_size);
  EXPECT_EQ(tokenizer->token_to_id("<|endoftext|>"), 0);
  EXPECT_TRUE(tokenizer->token_to_id(" cat").has_value());
  std::string text = "a cat \xF0\x9F\x98\x81 on the mat";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->encode(" the").size(), 1u);
}

TEST(BpeTrainer, ShortTextGivesFewerTokensThanAskedFor) {
  auto trainer = BpeTrainer::create({.vocab_size = 1000}).value();
  trainer.add_text("ab ab");
  EXPECT_EQ(trainer.train().value().vocab_size, 258);
}

TEST(BpeTrainer, ImpossibleRequestsAreRefused) {
  EXPECT_NE(BpeTrainer::create({.vocab_size = 100}).error().message.find("need 257"), std::string::npos);
  EXPECT_FALSE(BpeTrainer::create({.vocab_size = 300}).value().train().ok());
}

}  // namespace
}  // namespace tessera::data
