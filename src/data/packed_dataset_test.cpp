#include "data/packed_dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "data/blended_dataset.h"
#include "data/permutation.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;
using Documents = std::vector<std::vector<int64_t>>;

// Documents of unequal length whose tokens are all different: token = 100 * document + place.
Documents telling_documents(int num_documents) {
  Documents documents;
  for (int64_t d = 0; d < num_documents; ++d) {
    documents.emplace_back();
    for (int64_t i = 0; i < d * 7 % 23; ++i) documents.back().push_back(100 * d + i);
  }
  return documents;
}

fs::path write(const std::string& name, const Documents& documents) {
  fs::path folder = fs::path(testing::TempDir()) / "packed_dataset_test";
  fs::create_directories(folder);
  auto writer = TokenFileWriter::create(folder / name, 1 << 20).value();
  for (const auto& document : documents) EXPECT_TRUE(writer.add_document(document).ok());
  EXPECT_TRUE(writer.finish().ok());
  return folder / name;
}

std::unique_ptr<PackedDataset> open(const fs::path& prefix, PackedOptions options) {
  return std::move(PackedDataset::open(prefix, options)).value();
}

void expect_equal(const Sample& a, const Sample& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.starts, b.starts);
}

// What sample.h says, checked token by token: tokens tell which document they are from and where.
void expect_consistent(const Sample& sample, const Documents& documents) {
  for (size_t t = 0; t < sample.tokens.size(); ++t) {
    int64_t document = sample.tokens[t] / 100, place = sample.tokens[t] % 100;
    bool is_last = place + 1 == static_cast<int64_t>(documents[static_cast<size_t>(document)].size());
    EXPECT_EQ(sample.targets[t], is_last ? kNoTarget : sample.tokens[t] + 1);
    bool continues = t > 0 && sample.tokens[t - 1] == sample.tokens[t] - 1 && place > 0;
    EXPECT_EQ(sample.positions[t], continues ? sample.positions[t - 1] + 1 : 0);
    EXPECT_EQ(sample.starts[t], static_cast<int32_t>(t) - static_cast<int32_t>(sample.positions[t]));
    if (t > 0 && !continues) {
      EXPECT_EQ(place, 0) << "a document begins in its middle";
    }
  }
}

TEST(PackedDataset, TokensSeeOnlyTheirDocumentAndPredictItsNextToken) {
  Documents documents = telling_documents(40);
  auto data = open(write("consistent", documents), {.seq = 16, .seed = 3});
  for (int64_t i = 0; i < 3 * data->samples_per_epoch(); ++i) expect_consistent(data->sample(i), documents);
}

TEST(PackedDataset, AnEpochSeesEveryTokenOnceExceptLessThanOneSample) {
  auto data = open(write("once", telling_documents(40)), {.seq = 16, .seed = 3});
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < data->samples_per_epoch(); ++i)
      for (int64_t token : data->sample(epoch * data->samples_per_epoch() + i).tokens)
        EXPECT_TRUE(seen.insert(token).second) << token;
    EXPECT_GT(static_cast<int64_t>(seen.size()), data->num_tokens() - 16);
  }
}

TEST(PackedDataset, OrderDependsOnSeedAndEpochOnly) {
  fs::path prefix = write("order", telling_documents(40));
  auto one = open(prefix, {.seq = 8, .seed = 1}), again = open(prefix, {.seq = 8, .seed = 1}),
       other = open(prefix, {.seq = 8, .seed = 2});
  int64_t per_epoch = one->samples_per_epoch(), equal_seeds = 0, equal_epochs = 0;
  // Backwards, as a restart would come to it from another side.
  for (int64_t i = 2 * per_epoch - 1; i >= 0; --i) expect_equal(again->sample(i), one->sample(i));
  for (int64_t i = 0; i < per_epoch; ++i) {
    equal_seeds += one->sample(i).tokens == other->sample(i).tokens;
    equal_epochs += one->sample(i).tokens == one->sample(i + per_epoch).tokens;
  }
  EXPECT_LT(equal_seeds, per_epoch / 4);
  EXPECT_LT(equal_epochs, per_epoch / 4);
}

TEST(PackedDataset, OneLongDocumentIsShuffledToo) {
  Documents documents(1);
  for (int64_t i = 0; i < 1000; ++i) documents[0].push_back(i);
  auto data = open(write("long", documents), {.seq = 10});
  int in_order = 0;
  for (int64_t i = 0; i + 1 < 99; ++i)
    in_order += data->sample(i).tokens.back() + 1 == data->sample(i + 1).tokens.front();
  EXPECT_LT(in_order, 10);
  // Cut inside the document, the sample's last token still predicts the next one.
  Sample sample = data->sample(0);
  if (sample.tokens.back() != 999) {
    EXPECT_EQ(sample.targets.back(), sample.tokens.back() + 1);
  }
}

TEST(PackedDataset, WithoutShuffleSamplesFollowTheFile) {
  Documents documents = telling_documents(12);
  std::vector<int64_t> all;
  for (const auto& document : documents) all.insert(all.end(), document.begin(), document.end());
  auto data = open(write("plain", documents), {.seq = 8, .shuffle = false});
  for (int64_t i = 0; i < data->samples_per_epoch(); ++i) {
    auto begin = all.begin() + i * 8;
    EXPECT_EQ(data->sample(i).tokens, std::vector<int64_t>(begin, begin + 8));
    EXPECT_EQ(data->sample(i + data->samples_per_epoch()).tokens, data->sample(i).tokens);
  }
}

TEST(PackedDataset, ValidTokensAreCountedWithoutReadingThem) {
  auto data = open(write("valid", telling_documents(60)), {.seq = 12, .seed = 9});
  for (int64_t first : {0, 5, 40}) {
    int64_t expected = 0;
    for (int64_t i = first; i < first + 50; ++i) expected += data->sample(i).valid_tokens();
    EXPECT_EQ(data->valid_tokens(first, 50), expected);
  }
}

TEST(PackedDataset, ThreadsOfDifferentEpochsAgree) {
  fs::path prefix = write("threads", telling_documents(40));
  auto data = open(prefix, {.seq = 8}), alone = open(prefix, {.seq = 8});
  std::vector<std::thread> threads;
  std::vector<std::vector<Sample>> got(4);
  for (size_t t = 0; t < got.size(); ++t)
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < 100; ++i) got[t].push_back(data->sample(static_cast<int64_t>(t) + 17 * i));
    });
  for (auto& thread : threads) thread.join();
  for (size_t t = 0; t < got.size(); ++t)
    for (size_t i = 0; i < got[t].size(); ++i)
      expect_equal(got[t][i], alone->sample(static_cast<int64_t>(t + 17 * i)));
}

TEST(PackedDataset, UnusableFilesAreRefusedWithAReason) {
  fs::path prefix = write("small", {{1, 2, 3}});
  EXPECT_NE(PackedDataset::open(prefix, {.seq = 4}).error().message.find("has 3 tokens"), std::string::npos);
  EXPECT_NE(PackedDataset::open(prefix, {.seq = 2, .vocab_size = 3}).error().message.find("has token 3"),
            std::string::npos);
  EXPECT_TRUE(PackedDataset::open(prefix, {.seq = 2, .vocab_size = 4}).ok());
}

TEST(Permutation, IsABijectionThatMovesAlmostEverything) {
  for (int64_t size : {1, 2, 3, 5, 100, 1000, 4096, 70000}) {
    Permutation shuffle(size, 42);
    std::vector<char> hit(static_cast<size_t>(size));
    int64_t fixed = 0;
    for (int64_t i = 0; i < size; ++i) {
      hit[static_cast<size_t>(shuffle(i))]++;
      fixed += shuffle(i) == i;
    }
    EXPECT_EQ(std::count(hit.begin(), hit.end(), 1), size);
    if (size >= 100) {  // a random one has Poisson(1) fixed points
      EXPECT_LT(fixed, 12);
    }
  }
}

TEST(Permutation, AllOrdersOfThreeAreAboutEquallyLikely) {
  std::map<std::vector<int64_t>, int> counts;
  constexpr int kDraws = 6000;
  for (uint64_t key = 0; key < kDraws; ++key) {
    Permutation shuffle(3, key);
    ++counts[{shuffle(0), shuffle(1), shuffle(2)}];
  }
  ASSERT_EQ(counts.size(), 6u);
  // 1000 expected with standard deviation 29: six deviations.
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, kDraws / 6, 175);
}

TEST(BlendedDataset, SharesFollowTheWeightsAndNoSampleIsTakenTwice) {
  fs::path a = write("blend-a", telling_documents(40)), b = write("blend-b", telling_documents(30));
  auto first = std::shared_ptr<const SampleSource>(open(a, {.seq = 8})),
       second = std::shared_ptr<const SampleSource>(open(b, {.seq = 8}));
  auto blend = BlendedDataset::create({{first, 3}, {second, 1}}, 5).value();
  std::set<std::pair<size_t, int64_t>> taken;
  int64_t of_first = 0;
  for (int64_t i = 0; i < 2 * BlendedDataset::kBlock; ++i) {
    auto choice = blend->choose(i);
    EXPECT_TRUE(taken.insert({choice.part, choice.index}).second);
    of_first += choice.part == 0;
  }
  EXPECT_EQ(of_first, 2 * BlendedDataset::kBlock * 3 / 4);
  // Whole blocks use up exactly the first samples of each part.
  for (int64_t i = 0; i < BlendedDataset::kBlock / 2; ++i) EXPECT_TRUE(taken.count({1, i}));
  auto choice = blend->choose(77);
  expect_equal(blend->sample(77), (choice.part == 0 ? first : second)->sample(choice.index));
}

TEST(BlendedDataset, BadWeightsAreRefused) {
  auto source = std::shared_ptr<const SampleSource>(open(write("blend-c", telling_documents(40)), {.seq = 8}));
  EXPECT_FALSE(BlendedDataset::create({}, 0).ok());
  EXPECT_FALSE(BlendedDataset::create({{source, 0}}, 0).ok());
  EXPECT_FALSE(BlendedDataset::create({{source, 1}, {source, 1e-6}}, 0).ok());
}

}  // namespace
}  // namespace tessera::data
