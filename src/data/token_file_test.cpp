#include "data/token_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "core/file.h"
#include "data/unigram.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;
using Documents = std::vector<std::vector<int64_t>>;

fs::path scratch(const std::string& name) {
  fs::path folder = fs::path(testing::TempDir()) / "token_file_test";
  fs::create_directories(folder);
  return folder / name;
}

void write(const fs::path& prefix, int64_t vocab_size, const Documents& documents) {
  auto writer = TokenFileWriter::create(prefix, vocab_size).value();
  for (const auto& document : documents) ASSERT_TRUE(writer.add_document(document).ok());
  ASSERT_TRUE(writer.finish().ok());
}

Documents read_all(const TokenFile& file) {
  Documents documents;
  for (int64_t i = 0; i < file.num_documents(); ++i) {
    documents.emplace_back(static_cast<size_t>(file.length(i)));
    file.read(i, 0, documents.back());
  }
  return documents;
}

void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

TEST(TokenFile, WhatWasWrittenIsRead) {
  Documents documents = {{1, 2, 3}, {}, {65535 - 40, 7}};
  for (int64_t vocab_size : {65499, 65500, 200000}) {
    fs::path prefix = scratch("round-trip");
    write(prefix, vocab_size, documents);
    auto file = TokenFile::open(prefix);
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ(file->type(), vocab_size < 65500 ? TokenType::uint16 : TokenType::int32);
    EXPECT_EQ(file->num_tokens(), 5);
    EXPECT_EQ(read_all(*file), documents);
    std::vector<int64_t> middle(2);
    file->read(0, 1, middle);
    EXPECT_EQ(middle, (std::vector<int64_t>{2, 3}));
  }
}

TEST(TokenFile, BytesAreThoseOfTheFormat) {
  fs::path prefix = scratch("bytes");
  write(prefix, 1000, {{1, 258}, {3}});
  EXPECT_EQ(read_file(prefix.string() + ".bin").value(), std::string("\1\0\2\1\3\0", 6));
  std::string expected("MMIDIDX\0\0\1\0\0\0\0\0\0\0\10\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\2\0\0\0\1\0\0\0", 42);
  expected += std::string("\0\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 16);
  expected += std::string("\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 24);
  EXPECT_EQ(read_file(prefix.string() + ".idx").value(), expected);
}

TEST(TokenFile, DocumentsOfSeveralSequencesAreJoined) {
  fs::path prefix = scratch("joined");
  write(prefix, 1000, {{1, 2}, {3}, {4, 5}});
  std::string index = read_file(prefix.string() + ".idx").value();
  // Sequences 0 and 1 become one document: borders 0, 2, 3.
  index.resize(index.size() - 4 * 8);
  index[26] = 3;
  for (char border : {0, 2, 3}) index += std::string(1, border) + std::string(7, '\0');
  overwrite(prefix.string() + ".idx", index);
  auto file = TokenFile::open(prefix);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(read_all(*file), (Documents{{1, 2, 3}, {4, 5}}));
}

TEST(TokenFile, EveryTruncationIsDataLossOrNothing) {
  fs::path prefix = scratch("torn");
  write(prefix, 1000, {{1, 2, 3}, {4}});
  for (const char* suffix : {".idx", ".bin"}) {
    std::string path = prefix.string() + suffix, good = read_file(path).value();
    for (size_t size = 0; size < good.size(); ++size) {
      overwrite(path, good.substr(0, size));
      auto file = TokenFile::open(prefix);
      ASSERT_FALSE(file.ok()) << suffix << " of " << size << " bytes";
      EXPECT_EQ(file.error().code, ErrorCode::data_loss);
      EXPECT_NE(file.error().message.find(prefix.string() + suffix), std::string::npos) << file.error().message;
    }
    overwrite(path, good);
  }
  EXPECT_TRUE(TokenFile::open(prefix).ok());
}

TEST(TokenFile, RandomDamageOfTheIndexNeverCrashes) {
  fs::path prefix = scratch("damaged");
  write(prefix, 1000, {{1, 2, 3}, {4}, {5, 6}});
  std::string path = prefix.string() + ".idx", good = read_file(path).value();
  std::mt19937 random(2);
  for (int round = 0; round < 400; ++round) {
    std::string damaged = good;
    for (int i = 0; i < 2; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    overwrite(path, damaged);
    auto file = TokenFile::open(prefix);
    if (file.ok()) (void)read_all(*file);
  }
}

TEST(TokenFile, MissingFilesAreNamed) {
  auto file = TokenFile::open(scratch("missing"));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::not_found);
  EXPECT_NE(file.error().message.find("missing.idx"), std::string::npos);
}

TEST(TokenFile, AnUnfinishedWriterLeavesNothingBehind) {
  fs::path prefix = scratch("unfinished");
  {
    auto writer = TokenFileWriter::create(prefix, 10).value();
    ASSERT_TRUE(writer.add_document(std::vector<int64_t>{1}).ok());
    EXPECT_FALSE(writer.add_document(std::vector<int64_t>{10}).ok());
  }
  for (const auto& entry : fs::directory_iterator(prefix.parent_path()))
    EXPECT_EQ(entry.path().string().find("unfinished"), std::string::npos) << entry.path();
}

TEST(UnigramEntropy, EqualsTheClosedForms) {
  EXPECT_DOUBLE_EQ(unigram_entropy(std::vector<int64_t>(64, 5)), std::log(64.0));
  EXPECT_DOUBLE_EQ(unigram_entropy(std::vector<int64_t>{9, 0}), 0);
  EXPECT_DOUBLE_EQ(unigram_entropy({}), 0);
  double expected = -0.25 * std::log(0.25) - 0.75 * std::log(0.75);
  EXPECT_NEAR(unigram_entropy(std::vector<int64_t>{1, 3}), expected, 1e-15);
}

}  // namespace
}  // namespace tessera::data
