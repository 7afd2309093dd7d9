// Published configurations: the folder is data of the workplace, not of the repository.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "spec/blueprint.h"

namespace tessera {
namespace {

using nlohmann::json;

std::filesystem::path config_folder() {
  const char* given = std::getenv("TESSERA_MODEL_CONFIGS");
  return given ? given : std::filesystem::path(TESSERA_SOURCE_DIR) / "../shared/data/configs";
}

Blueprint load(const std::string& name) {
  auto model = load_blueprint(config_folder() / (name + ".json"));
  EXPECT_TRUE(model.ok()) << model.error().message;
  return *model;
}

TEST(PublishedConfigs, AreAllAccepted) {
  if (!std::filesystem::exists(config_folder())) GTEST_SKIP() << "no folder " << config_folder();
  int accepted = 0;
  for (const auto& file : std::filesystem::directory_iterator(config_folder())) {
    if (file.path().extension() != ".json") continue;
    auto model = load_blueprint(file.path());
    ASSERT_TRUE(model.ok()) << model.error().message;
    EXPECT_GT(tally(*model).total, 1e8) << file.path();
    EXPECT_FALSE(model->by_fields_only) << file.path() << " " << model->architecture;
    ++accepted;
  }
  EXPECT_GE(accepted, 75);
}

// Sizes of the files published under these names (Hugging Face's safetensors counts, in whole and half bytes).
TEST(PublishedConfigs, FormatsOfWeightsAreRead) {
  if (!std::filesystem::exists(config_folder())) GTEST_SKIP() << "no folder " << config_folder();
  EXPECT_EQ(load("deepseek-ai--DeepSeek-V3").expert_format, WeightFormat::fp8);
  EXPECT_EQ(load("openai--gpt-oss-120b").expert_format, WeightFormat::mxfp4);
  EXPECT_EQ(load("openai--gpt-oss-120b").attention_format, WeightFormat::bf16);
  EXPECT_EQ(load("moonshotai--Kimi-K2.5").expert_format, WeightFormat::int4);
  EXPECT_EQ(load("moonshotai--Kimi-K2.5").attention_format, WeightFormat::bf16);
  Blueprint nvfp4 = load("nvidia--Kimi-K2.5-NVFP4");
  EXPECT_EQ(nvfp4.expert_format, WeightFormat::nvfp4);
  EXPECT_EQ(nvfp4.attention_format, WeightFormat::bf16);
  EXPECT_EQ(nvfp4.kv_bytes_per_element, 1);
  EXPECT_EQ(load("deepseek-ai--DeepSeek-V4-Pro").expert_format, WeightFormat::mxfp4);
  // 65.3 GB: the size of gpt-oss-120b's published files (arXiv 2508.10925: 60.8 GiB).
  EXPECT_NEAR(published_weight_bytes(load("openai--gpt-oss-120b")) / (1 << 30), 60.8, 0.4);
}

json small() {
  return json::parse(R"({"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"rms_norm_eps":1e-5})");
}

TEST(ParseBlueprint, BadFieldsAreNamed) {
  auto expect_error = [](const json& config, const char* word) {
    auto model = parse_blueprint(config);
    ASSERT_FALSE(model.ok()) << config.dump();
    EXPECT_NE(model.error().message.find(word), std::string::npos) << model.error().message;
  };
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"})
    for (const json& value : {json(-1), json("many"), json(1.5), json(nullptr), json::array()}) {
      json config = small();
      config[key] = value;
      expect_error(config, key);
    }
  json config = small();
  config["num_key_value_heads"] = 3;
  expect_error(config, "num_key_value_heads");
  config = small(), config["num_hidden_layers"] = 100000000;
  expect_error(config, "at most 10000");
  config = small(), config["layer_types"] = {"full_attention"};
  expect_error(config, "1 entries for 2 layers");
  config = small(), config["layer_types"] = {"full_attention", "hyena"};
  expect_error(config, "hyena");
  config = small(), config["num_local_experts"] = 2, config["num_experts_per_tok"] = 3;
  expect_error(config, "more than the 2 experts");
  config = small(), config.erase("model_type");
  expect_error(config, "model_type");
  config = small(), config["model_type"] = "rwkv";
  expect_error(config, "RWKV");
  config = small(), config["is_encoder_decoder"] = true;
  expect_error(config, "an encoder and a decoder");
  expect_error(json::array(), "JSON object");
  expect_error({{"text_config", 3}, {"model_type", "x"}}, "text_config");
}

TEST(ParseBlueprint, UnknownArchitecturesAreReadByTheirFields) {
  json config = small();
  Blueprint known = *parse_blueprint(config);
  config["model_type"] = "brand_new";
  config["hidden_act"] = "silu";
  Blueprint unknown = *parse_blueprint(config);
  EXPECT_TRUE(unknown.by_fields_only);
  EXPECT_EQ(tally(unknown).total, tally(known).total);
  config["hidden_act"] = "gelu";  // no gate: two matrices
  EXPECT_EQ(tally(known).ffn - tally(*parse_blueprint(config)).ffn, 2 * 64 * 128);
}

TEST(ParseBlueprint, EqualsTheModelSpecOfTheSameFile) {
  Blueprint parsed = *parse_blueprint(small()), converted = blueprint(*parse_model_spec(small()));
  EXPECT_EQ(parsed.kinds, converted.kinds);
  EXPECT_EQ(parsed.order, converted.order);
}

}  // namespace
}  // namespace tessera
