#include "data/residue_tokenizer.h"

#include <gtest/gtest.h>

namespace tessera::data {
namespace {

constexpr const char* kVocabulary = "<cls>\n<pad>\n<eos>\n<unk>\nL\nA\nG\n<mask>\n";
using Ids = std::vector<int64_t>;

TEST(ResidueTokenizer, TakesLettersAndTokensThatAreWrittenOut) {
  auto tokenizer = parse_residue_vocabulary(kVocabulary, "vocab.txt");
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->encode("LA G", {.add_special_tokens = true}), (Ids{0, 4, 5, 6, 2}));
  EXPECT_EQ((*tokenizer)->encode("L<mask>A"), (Ids{4, 7, 5}));
  EXPECT_EQ((*tokenizer)->encode("", {.add_special_tokens = true}), (Ids{0, 2}));
  EXPECT_EQ((*tokenizer)->decode(Ids{0, 4, 5, 2}), "LA");
  EXPECT_EQ((*tokenizer)->vocab_size(), 8);
}

TEST(ResidueTokenizer, ARunOfUnknownLettersIsOneToken) {
  auto tokenizer = parse_residue_vocabulary(kVocabulary, "vocab.txt");
  EXPECT_EQ((*tokenizer)->encode("LxyzA??"), (Ids{4, 3, 5, 3}));
  EXPECT_EQ((*tokenizer)->encode("xy zz"), (Ids{3, 3}));
  EXPECT_EQ((*tokenizer)->encode("L<mask>", {.parse_special_tokens = false}), (Ids{4, 3}));
}

TEST(ResidueTokenizer, WithoutItsOwnTokensIsAnotherKindOfFile) {
  for (const char* text : {"", "[CLS]\n[SEP]\nword\n", "<cls>\n<eos>\nL\n"}) {
    auto tokenizer = parse_residue_vocabulary(text, "dir/vocab.txt");
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_NE(tokenizer.error().message.find("dir/vocab.txt"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera::data
