#include "plan/catalogue.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace tessera::plan {
namespace {

// "405.9B" -> 405.9e9, with half a unit of its last digit as tolerance.
struct Published {
  double value = 0, tolerance = 0;
};
Published published(const std::string& text) {
  double unit = text.back() == 'T' ? 1e12 : text.back() == 'B' ? 1e9 : 1e6;
  std::string digits = text.substr(0, text.size() - 1);
  size_t point = digits.find('.');
  double decimals = point == std::string::npos ? 0 : static_cast<double>(digits.size() - point - 1);
  return {std::stod(digits) * unit, 0.5 * unit * std::pow(10, -decimals)};
}

TEST(Catalogue, ParameterCountsArePublished) {
  for (const ModelEntry& entry : model_entries()) {
    auto model = find_model(entry.name);
    ASSERT_TRUE(model.ok()) << model.error().message;
    ParameterTally sum = tally(*model);
    if (!entry.parameters.empty()) {
      Published expected = published(entry.parameters);
      EXPECT_NEAR(sum.total, expected.value, expected.tolerance) << entry.name;
    }
    if (entry.active.empty()) continue;
    // Papers count active parameters with or without the input embedding.
    Published expected = published(entry.active);
    double nearer =
        std::min(std::abs(sum.active - expected.value), std::abs(sum.active - sum.embedding - expected.value));
    EXPECT_LE(nearer, expected.tolerance) << entry.name << " " << sum.active;
  }
}

TEST(Catalogue, NamesAreManyAndUnique) {
  std::set<std::string> seen;
  for (const ModelEntry& entry : model_entries()) {
    EXPECT_TRUE(seen.insert(entry.name).second) << entry.name;
    EXPECT_FALSE(entry.source.empty()) << entry.name;
    for (const std::string& alias : entry.aliases) EXPECT_TRUE(seen.insert(alias).second) << alias;
  }
  EXPECT_GE(model_entries().size(), 40u);
}

TEST(Catalogue, AliasesAndCapitalsAreFoundAndTyposAnswered) {
  EXPECT_EQ(find_model("DeepSeek-R1")->name, "deepseek-v3");
  EXPECT_EQ(find_model("gpt3")->name, "gpt3-175b");
  auto typo = find_model("lama-3.1-405b");
  ASSERT_FALSE(typo.ok());
  EXPECT_NE(typo.error().message.find("did you mean 'llama-3.1-405b'"), std::string::npos)
      << typo.error().message;
}

TEST(Catalogue, WhatTheTrainerCannotRunIsRefusedReadably) {
  auto spec = load_model("deepseek-v3");
  ASSERT_FALSE(spec.ok());
  EXPECT_NE(spec.error().message.find("deepseek_v3"), std::string::npos) << spec.error().message;
}

}  // namespace
}  // namespace tessera::plan
