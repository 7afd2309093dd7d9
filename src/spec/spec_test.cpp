#include "spec/spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

using nlohmann::json;

json llama_405b_config() {
  return json::parse(
      R"({"model_type":"llama","hidden_size":16384,"intermediate_size":53248,"num_hidden_layers":126,
    "num_attention_heads":128,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,
    "rms_norm_eps":1e-05,"rope_theta":500000.0,"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
    "original_max_position_embeddings":8192,"rope_type":"llama3"}})");
}
json mixtral_8x7b() {
  return json::parse(
      R"({"model_type":"mixtral","hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,
    "num_attention_heads":32,"num_key_value_heads":8,"vocab_size":32000,"num_local_experts":8,"num_experts_per_tok":2})");
}
json qwen3_30b_a3b_config() {
  return json::parse(
      R"({"model_type":"qwen3_moe","hidden_size":2048,"intermediate_size":6144,"num_hidden_layers":48,
    "num_attention_heads":32,"num_key_value_heads":4,"head_dim":128,"vocab_size":151936,"num_experts":128,
    "num_experts_per_tok":8,"moe_intermediate_size":768,"norm_topk_prob":true,"decoder_sparse_step":1,"mlp_only_layers":[]})");
}

TEST(Inventory, ParameterCountsArePublishedOnes) {
  EXPECT_EQ(count_parameters(*parse_model_spec(llama_405b_config())).total, 405853388800);  // model card: 405B
  EXPECT_EQ(count_parameters(*parse_model_spec(mixtral_8x7b())).total,
            46702792704);  // arXiv 2401.04088: 47B, 13B active
  EXPECT_EQ(count_parameters(*parse_model_spec(mixtral_8x7b())).active, 12879925248);
  EXPECT_NEAR(static_cast<double>(count_parameters(*parse_model_spec(qwen3_30b_a3b_config())).total), 30.5e9,
              0.1e9);
  EXPECT_NEAR(static_cast<double>(count_parameters(*parse_model_spec(qwen3_30b_a3b_config())).active), 3.3e9,
              0.1e9);
}

TEST(ModelSpec, ConfigRoundTrips) {
  for (const json& config : {llama_405b_config(), mixtral_8x7b(), qwen3_30b_a3b_config()}) {
    ModelSpec spec = *parse_model_spec(config);
    json once = to_config_json(spec, "bfloat16");
    EXPECT_EQ(to_config_json(*parse_model_spec(once), "bfloat16"), once);
  }
}

TEST(ModelSpec, BothNamesOfQwen3ExpertCountsAreRead) {
  json config = qwen3_30b_a3b_config();
  config["num_local_experts"] = config["num_experts"];
  config.erase("num_experts");
  EXPECT_EQ(parse_model_spec(config)->moe.experts, 128);
}

TEST(ModelSpec, UnknownArchitectureNamesTheNearest) {
  json config = llama_405b_config();
  config["model_type"] = "lama";
  Error error = parse_model_spec(config).error();
  EXPECT_EQ(error.code, ErrorCode::invalid_argument);
  EXPECT_NE(error.message.find("did you mean 'llama'"), std::string::npos) << error.message;
}

TEST(ModelSpec, MalformedFieldsAreNamed) {
  for (const char* key : {"hidden_size", "num_attention_heads", "vocab_size"}) {
    for (const json& value : {json(-1), json("many"), json(nullptr), json(1.5)}) {
      json config = llama_405b_config();
      config[key] = value;
      auto spec = parse_model_spec(config);
      ASSERT_FALSE(spec.ok()) << key << " " << value;
      EXPECT_NE(spec.error().message.find(key), std::string::npos) << spec.error().message;
    }
  }
}

TEST(Rope, Llama3ScalingKeepsShortWavesAndSlowsLongOnes) {
  ModelSpec spec = *parse_model_spec(llama_405b_config());
  auto scaled = inverse_frequencies(spec.rope, 128);
  auto plain = inverse_frequencies({.theta = 500000}, 128);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_FLOAT_EQ(scaled.back(), plain.back() / 8);
}

}  // namespace
}  // namespace tessera
