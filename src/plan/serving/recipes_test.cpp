#include "plan/serving/recipes.h"

#include <gtest/gtest.h>

#include "plan/catalogue.h"
#include "plan/serving/offered_load.h"
#include "plan/serving/predict.h"

namespace tessera::plan::serving {
namespace {

ServingCase inferencex(const std::string& engine, const std::string& model, const std::string& device,
                       int64_t tp, double input, double output, double users) {
  ServingCase c;
  c.engine = engine, c.label = model, c.model = catalogue_model(model), c.device = device;
  c.products = c.experts = "fp8", c.inferencex = true;
  c.layout = {.tp = tp, .moe_tp = 1, .moe_ep = c.model == "deepseek-v3" ? tp : 1};
  c.nominal_input_tokens = input, c.nominal_output_tokens = output;
  c.traffic = {.input_tokens = 0.9 * input, .output_tokens = 0.9 * output, .concurrency = users};
  return c;
}

ServingCase launched(ServingCase c) {
  apply_recipes(c, built_in_recipes());
  return c;
}

// 70b_fp8_h200_trt_slurm.sh: batches wait for each other at 1k/1k on fewer than eight ranks, and nowhere else.
TEST(Recipes, SetWhatTheScriptsSayAndNameIt) {
  ServingCase few = launched(inferencex("trtllm", "meta-llama/Llama-3.1-70B", "h200", 2, 1024, 1024, 16));
  EXPECT_EQ(few.constants.at("batch_wait_steps"), 20);
  EXPECT_NE(few.assumed.at("batch_wait_steps").find("70b_fp8_h200_trt_slurm.sh"), std::string::npos);
  EXPECT_FALSE(launched(inferencex("trtllm", "meta-llama/Llama-3.1-70B", "h200", 8, 1024, 1024, 16))
                   .constants.contains("batch_wait_steps"));
  EXPECT_FALSE(launched(inferencex("TensorRT-LLM", "Llama-3.1-70B", "H200-141GB", 2, 1024, 8192, 16))
                   .constants.contains("batch_wait_steps"));
  EXPECT_EQ(
      launched(inferencex("SGLang", "DeepSeek-R1", "B200-180GB", 8, 1024, 1024, 8)).constants.at("poll_steps"),
      10);
  EXPECT_EQ(
      launched(inferencex("SGLang", "DeepSeek-R1", "B200-180GB", 8, 1024, 1024, 16)).constants.at("poll_steps"),
      30);
}

// A prompt and one token of each user fit, drafts included.
TEST(Recipes, BudgetsFollowPromptUsersAndDrafts) {
  ServingCase c = inferencex("trtllm", "deepseek-ai/DeepSeek-R1", "b200", 8, 8192, 1024, 256);
  c.version = "1.2.0rc6.post2";
  EXPECT_EQ(launched(c).constants.at("budget_tokens"), 8192 + 256 + 64);
  EXPECT_EQ(launched(c).constants.at("draft_tokens"), 0);
  c.version = "1.2.0rc6.post3";
  EXPECT_EQ(launched(c).constants.at("budget_tokens"), 8192 + 4 * 256 + 64);
  EXPECT_EQ(launched(c).constants.at("draft_tokens"), 3);
}

TEST(Recipes, OtherRunsAreLeftAsTheyAre) {
  ServingCase own = inferencex("trtllm", "meta-llama/Llama-3.1-70B", "h200", 2, 1024, 1024, 16);
  own.inferencex = false;
  EXPECT_TRUE(launched(own).constants.empty());
  ServingCase refused = inferencex("trtllm", "meta-llama/Llama-3.1-70B", "h200", 2, 1024, 1024, 16);
  refused.refused = "for a reason";
  EXPECT_TRUE(launched(refused).constants.empty());
}

TEST(Recipes, AnUnknownKeyNamesTheNearest) {
  auto wrong = parse_recipes("[[recipe]]\nengine = \"sglang\"\npol_steps = 3\n", "r.toml");
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.error().message.find("poll_steps"), std::string::npos) << wrong.error().message;
  EXPECT_FALSE(parse_recipes("[[recipe]]\ngpus = \"b200\"\n", "r.toml").ok());
  EXPECT_FALSE(parse_recipes("[[recipe]]\npoll_steps = -1\n", "r.toml").ok());
}

double ttft(const ServingCase& c) {
  return predict(c, *find_model(c.model), EngineCatalogue::built_in())->ttft_s;
}

// Between two looks for new requests a prompt waits half of the interval on the mean, in steps of decoding.
TEST(Recipes, WaitsAreStepsOfDecoding) {
  ServingCase c = inferencex("vllm", "meta-llama/Llama-3.1-70B", "h200", 4, 1024, 8192, 8);
  double none = ttft(c);
  Estimate e = *predict(c, *find_model(c.model), EngineCatalogue::built_in());
  c.constants["poll_steps"] = 30;
  EXPECT_NEAR(ttft(c) - none, 15 * 0.9 * e.tpot_s, 3 * e.tpot_s);  // the first of ten waves does not wait
  c.constants = {{"batch_wait_steps", 20}};
  EXPECT_GT(ttft(c) - none, 10 * 0.9 * e.tpot_s);  // alone 20, many 10
  EXPECT_LT(ttft(c) - none, 21 * e.tpot_s);
}

TEST(OfferedLoad, RowsNearTheirSetupsSaturatedRateDoNotCount) {
  ServingCase flood = inferencex("trtllm", "meta-llama/Llama-3.1-70B", "h200", 1, 1000, 1000, 0);
  flood.setup = "a", flood.traffic.arrival = Arrival::flood, flood.published.tok_s_gpu = 1000;
  ServingCase open = flood;
  open.traffic.arrival = Arrival::open, open.published = {};
  open.traffic.rate = 0.8;  // of 900 tokens each: 720 a second
  ServingCase near = open;
  near.traffic.rate = 1.05;
  ServingCase alone = near;
  alone.setup = "b";
  EXPECT_EQ(offers_less_than_saturation({flood, open, near, alone}),
            (std::vector<bool>{false, true, false, true}));
}

}  // namespace
}  // namespace tessera::plan::serving
