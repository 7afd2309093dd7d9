#include "data/pack.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/file.h"
#include "data/bpe_trainer.h"
#include "data/token_file.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

class Pack : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "pack_test" /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    auto trainer = BpeTrainer::create({.vocab_size = 280}).value();
    trainer.add_text("the cat sat on the mat and the rat sat on the cat");
    tokenizer_ = parse_tokenizer_json(trainer.train().value().tokenizer_json, "test").value();
    tokenizer_->set_eos_id(0);
  }

  fs::path write(const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  std::string refused(const std::vector<fs::path>& inputs) {
    auto text = TextFiles::open(inputs, {});
    return text.ok() ? "accepted" : text.error().message;
  }
  Result<PackResult> pack_text(const std::vector<fs::path>& inputs, double held_out, TextOptions options = {}) {
    TESSERA_ASSIGN_OR_RETURN(auto text, TextFiles::open(inputs, options));
    return pack(text, *tokenizer_, {.files = pack_files(folder_ / "out"), .held_out = held_out});
  }
  std::string document(const fs::path& prefix, int64_t number) {
    auto file = TokenFile::open(prefix).value();
    std::vector<int64_t> ids(static_cast<size_t>(file.length(number)));
    file.read(number, 0, ids);
    return tokenizer_->decode(ids, false);
  }

  fs::path folder_;
  std::shared_ptr<Tokenizer> tokenizer_;
};

TEST_F(Pack, UnusableTextIsNamedWithFileAndByte) {
  EXPECT_NE(refused({folder_ / "none.txt"}).find("none.txt: No such file"), std::string::npos);
  EXPECT_NE(refused({write("empty.txt", "")}).find("empty.txt: is empty"), std::string::npos);
  EXPECT_NE(refused({write("latin.txt", "caf\xE9!")}).find("latin.txt: byte 3 (0xE9) is no UTF-8"),
            std::string::npos);
  fs::create_directories(folder_ / "bare");
  EXPECT_NE(refused({folder_ / "bare"}).find("no text in it"), std::string::npos);
}

TEST_F(Pack, ABadLastFileLeavesNoOutputAndEarlierFilesAlone) {
  fs::path good = write("good.txt", "the cat"), bad = write("zz.txt", "caf\xE9");
  ASSERT_TRUE(pack_text({good}, 0).ok());
  std::string before = read_file(folder_ / "out-train.bin").value();
  EXPECT_FALSE(pack_text({good, bad}, 0).ok());
  EXPECT_EQ(read_file(folder_ / "out-train.bin").value(), before);
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
}

TEST_F(Pack, FoldersAreReadInOrderOfNamesAndOtherFilesLeft) {
  write("tree/b.py", "the rat");
  write("tree/a/x.h", "the cat");
  write("tree/a/image.png", "\xFF\xD8");
  write("tree/void.txt", "");
  auto result = pack_text({folder_ / "tree"}, 0);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result->train.documents, 2);
  EXPECT_EQ(document(folder_ / "out-train", 0), "the cat<|endoftext|>");
  EXPECT_EQ(document(folder_ / "out-train", 1), "the rat<|endoftext|>");
}

TEST_F(Pack, ManyDocumentsAreHeldOutWhole) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "the cat " + std::to_string(i) + "\n\n";
  auto result = pack_text({write("many.txt", text)}, 0.1, {.separator = "\n\n"}).value();
  EXPECT_TRUE(result.split_by_document);
  EXPECT_EQ(result.train.documents + result.valid->documents, 1000);
  // Binomial: 100 expected with standard deviation 9.5; four deviations.
  EXPECT_NEAR(static_cast<double>(result.valid->documents), 100, 38);
  EXPECT_EQ(document(result.valid->prefix, 0).substr(0, 8), "the cat ");
}

TEST_F(Pack, AFewDocumentsAreHeldOutByTheirTails) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(i) + "\n";
  auto result = pack_text({write("one.txt", text)}, 0.1).value();
  EXPECT_FALSE(result.split_by_document);
  std::string train = document(result.train.prefix, 0), valid = document(result.valid->prefix, 0);
  EXPECT_EQ(train + valid, text + "<|endoftext|>");
  EXPECT_EQ(train.back(), '\n');
  EXPECT_NEAR(static_cast<double>(valid.size()), 0.1 * static_cast<double>(text.size()), 30);
}

TEST_F(Pack, SpecialTokensSpeltInTextCannotEndADocument) {
  auto result = pack_text({write("spelt.txt", "the <|endoftext|> cat")}, 0);
  ASSERT_TRUE(result.ok());
  auto file = TokenFile::open(folder_ / "out-train").value();
  EXPECT_EQ(file.counts_by_id()[0], 1);
}

TEST_F(Pack, MaxBytesTakesThatMuchFromSeveralFiles) {
  for (int i = 0; i < 40; ++i)
    write("tree/" + std::to_string(i) + ".txt", std::string(100, 'a' + i % 26) + "\n");
  auto text = TextFiles::open({folder_ / "tree"}, {.max_bytes = 1010}).value();
  EXPECT_EQ(text.num_files(), 10);
  EXPECT_EQ(text.bytes(), 1010);
  auto one = TextFiles::open({write("long.txt", "abc\ndef\nghi\n")}, {.max_bytes = 9}).value();
  EXPECT_EQ(one.bytes(), 8);
}

TEST_F(Pack, TooLittleTextToHoldOutIsSaid) {
  auto result = pack_text({write("tiny.txt", "a")}, 0.01);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("too little text"), std::string::npos) << result.error().message;
  EXPECT_FALSE(fs::exists(folder_ / "out-train.bin"));
}

TEST(PackFiles, APrefixOrAFolder) {
  EXPECT_EQ(pack_files("runs/x").train, "runs/x-train");
  EXPECT_EQ(pack_files("runs/none/").valid, "runs/none/valid");
}

}  // namespace
}  // namespace tessera::data
