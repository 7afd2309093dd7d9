#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "core/file.h"
#include "data/byte_level.h"
#include "data/utf8.h"

namespace tessera::data {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Real vocabularies and the ids other programs gave for them lie beside the repository.
const fs::path kShared = fs::path(TESSERA_SOURCE_DIR) / "../shared/data";

#define NEED_SHARED_DATA() \
  if (!fs::exists(kShared)) GTEST_SKIP() << "needs " << kShared

TokenizerPtr load(const fs::path& path) {
  auto tokenizer = load_tokenizer(path);
  EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.error().message);
  return tokenizer.ok() ? *tokenizer : nullptr;
}

json load_json(const fs::path& path) {
  return json::parse(read_file(path).value());
}

// GPT-2's published files in the form of tokenizer.json.
std::string gpt2_tokenizer_json() {
  std::string lines = read_file(kShared / "tokenizer/gpt2-vocab.bpe").value();
  json merges = json::array();
  for (size_t at = lines.find('\n') + 1; at < lines.size();) {
    size_t end = std::min(lines.find('\n', at), lines.size());
    if (end > at) merges.push_back(lines.substr(at, end - at));
    at = end + 1;
  }
  json model = {
      {"type", "BPE"}, {"vocab", load_json(kShared / "tokenizer/gpt2-encoder.json")}, {"merges", merges}};
  return json{{"model", model}, {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}.dump();
}

// A vocabulary small enough to see through: all bytes, then what `merges` make, then one special token.
json small_tokenizer(const std::vector<std::pair<std::string, std::string>>& merges) {
  json vocabulary = json::object(), list = json::array();
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    char raw = static_cast<char>(byte);
    vocabulary[visible_of_bytes({&raw, 1})] = id++;
  }
  for (const auto& [left, right] : merges) {
    vocabulary[left + right] = id++;
    list.push_back({left, right});
  }
  json end = {{"id", id}, {"content", "<|endoftext|>"}, {"special", true}};
  return {{"added_tokens", {end}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

std::shared_ptr<Tokenizer> parse(const json& description) {
  auto tokenizer = parse_tokenizer_json(description.dump(), "test");
  EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.error().message);
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> list;
  for (int64_t id : tokenizer.encode(text)) list.emplace_back(tokenizer.bytes_of(id));
  return list;
}

using Strings = std::vector<std::string>;

TEST(TokenizerJson, Gpt2GivesTheIdsOfTiktokenAndHuggingFace) {
  NEED_SHARED_DATA();
  auto tokenizer = parse_tokenizer_json(gpt2_tokenizer_json(), "gpt2").value();
  for (const auto& row : load_json(kShared / "tokenizer/golden.json")) {
    auto text = row["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text), row["gpt2"].get<std::vector<int64_t>>()) << text;
    EXPECT_EQ(tokenizer->decode(row["gpt2"].get<std::vector<int64_t>>()), text);
  }
}

TEST(TokenizerJson, GptNeoxGivesTheIdsOfHuggingFace) {
  NEED_SHARED_DATA();
  auto tokenizer = load(kShared / "tokenizer/gpt-neox-20B_tokenizer.json");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->vocab_size(), 50277);
  EXPECT_EQ(tokenizer->eos_id(), 0);
  for (const auto& row : load_json(kShared / "tokenizer/golden.json"))
    EXPECT_EQ(tokenizer->encode(row["text"].get<std::string>()), row["neox"].get<std::vector<int64_t>>())
        << row["text"];
}

TEST(TokenizerJson, Gpt2AgreesWithLlamaCppOnItsHardStrings) {
  NEED_SHARED_DATA();
  auto tokenizer = parse_tokenizer_json(gpt2_tokenizer_json(), "gpt2").value();
  std::string texts = read_file(kShared / "tokenizer/ggml-vocab-gpt-2.gguf.inp").value();
  std::string answers = read_file(kShared / "tokenizer/ggml-vocab-gpt-2.gguf.out").value();
  constexpr std::string_view kBorder = "\n__ggml_vocab_test__\n";
  int checked = 0;
  for (size_t text_at = 0, answer_at = 0; text_at < texts.size(); ++checked) {
    size_t text_end = texts.find(kBorder, text_at);
    if (text_end == std::string::npos) break;
    size_t answer_end = answers.find('\n', answer_at);
    std::string text = texts.substr(text_at, text_end - text_at), ids;
    for (int64_t id : tokenizer->encode(text)) ids += fmt::format(" {}", id);
    EXPECT_EQ(ids, answers.substr(answer_at, answer_end - answer_at)) << text;
    text_at = text_end + kBorder.size();
    answer_at = answer_end + 1;
  }
  EXPECT_GE(checked, 40);
}

TEST(TokenizerJson, MergesAreTakenByRankAndLeftmostFirst) {
  auto tokenizer = parse(small_tokenizer({{"b", "c"}, {"a", "a"}, {"a", "b"}}));
  EXPECT_EQ(pieces(*tokenizer, "abc"), (Strings{"a", "bc"}));
  EXPECT_EQ(pieces(*tokenizer, "aaa"), (Strings{"aa", "a"}));
  EXPECT_EQ(pieces(*tokenizer, "abab"), (Strings{"ab", "ab"}));
}

TEST(TokenizerJson, IgnoreMergesTakesAWholeWordEvenWhenMergesCannotReachIt) {
  json description = small_tokenizer({{"a", "b"}});
  description["model"]["vocab"]["xyz"] = 300;
  EXPECT_EQ(pieces(*parse(description), "xyz"), (Strings{"x", "y", "z"}));
  description["model"]["ignore_merges"] = true;
  EXPECT_EQ(pieces(*parse(description), "xyz"), (Strings{"xyz"}));
}

TEST(TokenizerJson, SpecialTokensAreFoundInTextUnlessRefused) {
  auto tokenizer = parse(small_tokenizer({}));
  EXPECT_EQ(pieces(*tokenizer, "a<|endoftext|>b"), (Strings{"a", "<|endoftext|>", "b"}));
  EXPECT_EQ(tokenizer->encode("<|endoftext|>", {.parse_special_tokens = false}).size(), 13u);
  std::vector<int64_t> ids = tokenizer->encode("a<|endoftext|>b");
  EXPECT_EQ(tokenizer->decode(ids), "ab");
  EXPECT_EQ(tokenizer->decode(ids, false), "a<|endoftext|>b");
}

TEST(TokenizerJson, TemplatePutsBeginAndEndAroundPrompts) {
  json description = small_tokenizer({});
  description["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}}}}}},
      {"special_tokens", {{"<|endoftext|>", {{"ids", {256}}}}}}};
  auto tokenizer = parse(description);
  EXPECT_EQ(tokenizer->encode("a").size(), 1u);
  EXPECT_EQ(tokenizer->encode("a", {.add_special_tokens = true}).front(), 256);
}

TEST(TokenizerJson, PrefixSpaceIsAddedOnce) {
  json description = small_tokenizer({});
  description["pre_tokenizer"]["add_prefix_space"] = true;
  auto tokenizer = parse(description);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a")), " a");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(" a")), " a");
}

TEST(TokenizerJson, AnyBytesComeBackUnchanged) {
  auto tokenizer = parse(small_tokenizer({{"a", "b"}, {"Ã", "©"}}));
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % 3 == 0 ? 'a' + random() % 3 : random());
    auto ids = tokenizer->encode(bytes, {.parse_special_tokens = false});
    ASSERT_EQ(tokenizer->decode(ids, false), bytes);
  }
}

TEST(TokenizerJson, AMegabyteWithoutSpacesTakesNoQuadraticTime) {
  auto tokenizer = parse(small_tokenizer({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}));
  EXPECT_EQ(tokenizer->encode(std::string(1 << 20, 'a')).size(), (1u << 20) / 8);
}

TEST(TokenizerJson, DamagedFilesGiveErrorsThatNameTheFile) {
  json good = small_tokenizer({{"a", "b"}});
  auto message = [](const std::string& content) {
    auto tokenizer = parse_tokenizer_json(content, "model/tokenizer.json");
    return tokenizer.ok() ? std::string("accepted") : tokenizer.error().message;
  };
  EXPECT_NE(message("{").find("model/tokenizer.json: "), std::string::npos);
  EXPECT_NE(message("[]").find("not a tokenizer.json"), std::string::npos);
  json bad = good;
  bad["model"]["merges"].push_back({"a", "zzz"});
  EXPECT_NE(message(bad.dump()).find("merge 'a zzz' uses a token that is not in the vocabulary"),
            std::string::npos);
  bad = good;
  bad["model"]["vocab"]["x!"] = int64_t{1} << 40;
  EXPECT_NE(message(bad.dump()).find("token 'x!' has id"), std::string::npos);
  bad = good;
  bad["model"]["type"] = "Unigram";
  EXPECT_NE(message(bad.dump()).find("model 'Unigram' is not supported"), std::string::npos);
  bad = good;
  bad["pre_tokenizer"] = {{"type", "Metaspace"}};
  EXPECT_NE(message(bad.dump()).find("pre_tokenizer 'Metaspace' is not supported"), std::string::npos);
}

TEST(TokenizerJson, RandomDamageNeverCrashes) {
  std::string good = small_tokenizer({{"a", "b"}}).dump();
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = good;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(32 + random() % 95);
    if (round % 3 == 0) damaged.resize(random() % damaged.size());
    auto tokenizer = parse_tokenizer_json(damaged, "damaged");
    if (tokenizer.ok()) (void)(*tokenizer)->encode("a damaged ab");
  }
}

TEST(Llama2cTokenizer, GivesThePublishedPromptIds) {
  NEED_SHARED_DATA();
  auto tokenizer = load(kShared / "models/stories260K");
  ASSERT_TRUE(tokenizer);
  json golden = load_json(kShared / "models/stories260K/golden.json");
  auto text = golden["prompt"].get<std::string>();
  auto ids = golden["prompt_ids"].get<std::vector<int64_t>>();
  EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = true}), ids);
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_EQ(tokenizer->vocab_size(), 512);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
}

// llama2.c's own loop, word for word of its description: the best pair of the whole text, again and again.
std::vector<int64_t> merged_one_by_one(const Tokenizer& tokenizer, const std::vector<float>& scores,
                                       std::vector<std::string> parts) {
  while (true) {
    float best = -1e10f;
    size_t place = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      auto id = tokenizer.token_to_id(parts[i] + parts[i + 1]);
      if (!id || scores[static_cast<size_t>(*id)] <= best) continue;
      best = scores[static_cast<size_t>(*id)];
      place = i + 1;
    }
    if (place == 0) break;
    parts[place - 1] += parts[place];
    parts.erase(parts.begin() + static_cast<int64_t>(place));
  }
  std::vector<int64_t> ids;
  for (const auto& part : parts) ids.push_back(*tokenizer.token_to_id(part));
  return ids;
}

TEST(Llama2cTokenizer, QueueOfPairsEqualsTheGreedyLoop) {
  NEED_SHARED_DATA();
  auto tokenizer = load(kShared / "models/stories260K");
  std::vector<float> scores(512, 0.f);
  for (size_t id = 259; id < 512; ++id) scores[id] = -static_cast<float>(id - 259);  // as stored in the file
  std::mt19937 random(11);
  const std::string letters = "etaonhisrdlu  Once upon.";
  for (int round = 0; round < 300; ++round) {
    std::string text(1 + random() % 60, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    std::vector<std::string> parts = {" "};
    for (char c : text) parts.emplace_back(1, c);
    ASSERT_EQ(tokenizer->encode(text), merged_one_by_one(*tokenizer, scores, parts)) << text;
  }
}

TEST(Llama2cTokenizer, CharactersOutsideTheVocabularyBecomeBytes) {
  NEED_SHARED_DATA();
  auto tokenizer = load(kShared / "models/stories260K");
  std::string text = "\xF0\x9F\x98\x81";
  auto ids = tokenizer->encode(text);
  ASSERT_EQ(ids.size(), 5u);
  EXPECT_EQ(ids[1], 3 + 0xF0);
  ids.insert(ids.begin(), 1);
  EXPECT_EQ(tokenizer->decode(ids), text);
}

TEST(Llama2cTokenizer, TornFilesAreDataLossWithTheOffset) {
  NEED_SHARED_DATA();
  std::string good = read_file(kShared / "models/stories260K/tok512.bin").value();
  for (size_t size : {size_t{0}, size_t{3}, size_t{100}, good.size() - 1}) {
    auto tokenizer = parse_llama2c_tokenizer(good.substr(0, size), "tok512.bin");
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_EQ(tokenizer.error().code, ErrorCode::data_loss);
    EXPECT_NE(tokenizer.error().message.find("tok512.bin: "), std::string::npos);
  }
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::string damaged = good;
    for (int i = 0; i < 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    auto tokenizer = parse_llama2c_tokenizer(damaged, "damaged");
    if (tokenizer.ok()) (void)(*tokenizer)->encode("Once \xFF upon");
  }
}

TEST(StreamDecoder, GivesOnlyWholeCharactersAndAllOfThem) {
  auto tokenizer = parse(small_tokenizer({}));
  std::string text = "na\xC3\xAFve \xF0\x9F\x98\x81!";
  StreamDecoder stream(tokenizer);
  std::string received;
  for (int64_t id : tokenizer->encode(text)) {
    std::string part = stream.push(id);
    EXPECT_EQ(utf8_valid_prefix(part), part.size());
    received += part;
  }
  EXPECT_EQ(received + stream.flush(), text);
}

TEST(StreamDecoder, BrokenCharactersComeOutAsReplacements) {
  auto tokenizer = parse(small_tokenizer({}));
  StreamDecoder stream(tokenizer);
  std::string received;
  for (int64_t id : tokenizer->encode("\xE2\x82Z\xF0\x9F")) received += stream.push(id);
  EXPECT_EQ(received, "\xEF\xBF\xBDZ");
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
}

TEST(LoadTokenizer, AFolderWithoutOneSaysWhatWasExpected) {
  auto tokenizer = load_tokenizer("/nonexistent-model");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.error().code, ErrorCode::not_found);
  fs::path folder = fs::path(testing::TempDir()) / "no-tokenizer";
  fs::create_directories(folder);
  EXPECT_NE(load_tokenizer(folder).error().message.find("expected tokenizer.json"), std::string::npos);
}

TEST(Utf8, RejectsOverlongSurrogateAndTooLargeForms) {
  EXPECT_EQ(utf8_valid_prefix("plain ascii text \xC3\xA9"), 19u);
  for (const char* bad :
       {"\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xE2\x82"})
    EXPECT_EQ(utf8_valid_prefix(std::string("abcdefghij") + bad), 10u);
}

}  // namespace
}  // namespace tessera::data
