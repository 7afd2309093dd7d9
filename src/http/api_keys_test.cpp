// Keys from their file, and the buckets of their quotas.
#include <gtest/gtest.h>

#include <cmath>

#include "http/http.h"

namespace tessera {
namespace {

TEST(ApiKeys, AreFoundByTheirTextOrItsHash) {
  auto keys = ApiKeys::parse(R"(
[[key]]
key = "abc"
tenant = "a"
models = ["m"]
[[key]]
sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
tenant = "b"
priority = -3
admin = true
)",
                             "keys.toml");
  ASSERT_TRUE(keys) << keys.error().message;
  EXPECT_EQ(keys->find("abc")->tenant, "a");
  EXPECT_EQ(keys->find("foo")->tenant, "b");
  EXPECT_EQ(keys->find("foo")->most_urgent_priority, -3);
  EXPECT_TRUE(keys->find("foo")->admin);
  EXPECT_FALSE(keys->find("abc")->admin);
  EXPECT_TRUE(keys->find("foo")->may_use("anything"));
  EXPECT_TRUE(keys->find("abc")->may_use("m"));
  EXPECT_FALSE(keys->find("abc")->may_use("other"));
  for (const char* wrong : {"", "ab", "abcd", "ABC"}) EXPECT_EQ(keys->find(wrong), nullptr) << wrong;
}

TEST(ApiKeys, AFileThatCannotBeMeantIsNamedWithItsKeyAndEntry) {
  struct Case {
    const char *text, *expected;
  };
  for (auto [text, expected] : std::initializer_list<Case>{
           {"", "[[key]]"},
           {"[[key]]\nkey = \"a\"", "'tenant' is missing"},
           {"[[key]]\ntenant = \"t\"", "either 'key' or 'sha256'"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\nsha256 = \"b\"", "either 'key' or 'sha256'"},
           {"[[key]]\ntenant = \"t\"\nsha256 = \"b\"", "64 hexadecimal digits"},
           {"[[key]]\ntenant = \"t\"\nkey = 5", "'key' must be a string, not integer"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\nmodel = [\"m\"]", "did you mean 'models'"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\nmodels = []", "list of names"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\nadmin = 1", "'admin' must be true or false, not 1"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\nrequests_per_minute = -1", "an integer above 0, not -1"},
           {"[[key]]\ntenant = \"t\"\nkey = \"a\"\n[[key]]\ntenant = \"u\"\nkey = \"a\"",
            "number 2: the key is listed"}}) {
    auto keys = ApiKeys::parse(text, "keys.toml");
    ASSERT_FALSE(keys) << text;
    EXPECT_TRUE(keys.error().message.starts_with("keys.toml: ")) << keys.error().message;
    EXPECT_NE(keys.error().message.find(expected), std::string::npos) << keys.error().message;
  }
}

TEST(Quota, RequestsComeBackEvenlyOverTheMinute) {
  Quota quota({.requests_per_minute = 60});
  auto now = Clock::now();
  for (int i = 0; i < 60; ++i) EXPECT_EQ(quota.take_request(now), 0) << i;
  EXPECT_NEAR(quota.take_request(now), 1, 0.01);
  now += std::chrono::milliseconds(2500);
  EXPECT_EQ(quota.take_request(now), 0);
  EXPECT_EQ(quota.take_request(now), 0);
  EXPECT_NEAR(quota.take_request(now), 0.5, 0.01);
}

TEST(Quota, TokensThatACallDidNotUseComeBack) {
  auto quota = std::make_shared<Quota>(QuotaLimits{.tokens_per_minute = 100});
  auto now = Clock::now();
  {
    EXPECT_EQ(quota->take_tokens(80, now), 0);
    TokenClaim claim(quota, 80);
    EXPECT_GT(quota->take_tokens(30, now), 0);
    claim.settle(10);
  }
  EXPECT_EQ(quota->take_tokens(90, now), 0);
  EXPECT_NEAR(quota->take_tokens(10, now), 6, 0.01);
  EXPECT_TRUE(std::isinf(quota->take_tokens(101, now)));
  EXPECT_EQ(Quota({}).take_tokens(1 << 30, now), 0);
}

TEST(Gate, WaitsBecomeWholeSecondsThatAClientCanUse) {
  EXPECT_EQ(retry_after(0.01), "1");
  EXPECT_EQ(retry_after(2.2), "3");
  EXPECT_EQ(retry_after(std::numeric_limits<double>::infinity()), "60");
}

}  // namespace
}  // namespace tessera
