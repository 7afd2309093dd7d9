// NVIDIA's projections for GPT-MoE 1.8T (launch charts of Blackwell, not measurements): 32,768 tokens in, 1,024
// out, 50 ms a token. H100 3.5 in FP8, HGX B200 58 and GB200 NVL72 116 tokens/s per GPU in FP4, which is the
// format of all products there, attention's too. Figures within a quarter; where the charts say more, the tests
// hold the known distance (docs/plan_serving.md).
#include <gtest/gtest.h>

#include "plan/catalogue.h"
#include "plan/serving/search.h"

namespace tessera::plan::serving {
namespace {

SearchRequest gpt_moe(const char* cluster, const char* format, int64_t gpus) {
  SearchRequest request;
  request.model = *find_model("gpt-moe-1.8t-gqa");
  request.device = *accelerator(cluster);
  request.engine = *EngineCatalogue::built_in().find("trtllm", "");
  request.one_phase_engine = *EngineCatalogue::built_in().find("trtllm", "disaggregated");
  WeightFormat weights = *parse_weight_format(format);
  request.formats = {.attention = weights, .ffn = weights, .experts = weights, .kv_bytes = 1};
  request.gpus = gpus, request.finalists = 0;
  request.traffic = {.input_tokens = 32768, .output_tokens = 1024, .concurrency = 0};
  request.limits.tpot_s = 0.05;
  return request;
}

// The charts' 5 s to the first token are for one prompt; with the queue of a closed loop 8 s leaves each system
// room.
double best_rate(SearchRequest request) {
  request.limits.ttft_s = 8;
  auto outcome = search(request);
  return outcome.ok() && !outcome->ranked.empty() ? outcome->ranked[0].estimate.tokens_per_s_gpu : 0;
}

TEST(GptMoe, EqualUserSpeedCostsManyTimesMoreOnHopper) {
  double h100 = best_rate(gpt_moe("h100", "fp8", 64));
  double b200 = best_rate(gpt_moe("b200", "nvfp4", 64));
  double gb200 = best_rate(gpt_moe("gb200-nvl72", "nvfp4", 72));
  EXPECT_NEAR(h100, 3.5, 0.25 * 3.5);
  EXPECT_NEAR(b200, 58, 0.25 * 58);
  EXPECT_NEAR(gb200, 116, 0.25 * 116);
  EXPECT_NEAR(b200 / h100, 15, 0.25 * 15);
  EXPECT_NEAR(gb200 / h100, 30, 0.25 * 30);
  // Charts: twice. Prompts, most of the work, compute no faster in a wider domain; answers do.
  EXPECT_GT(gb200 / b200, 1.25);
}

// Published for 64 GPUs: TP4 EP4 PP4 gives about three times the throughput of TP alone at equal user speed,
// where TP over all leaves the hosts of 8.
TEST(GptMoe, AMixOfParallelismsBeatsTensorParallelismAlone) {
  auto rate = [](const char* layout) {
    SearchRequest request = gpt_moe("b200", "nvfp4", 64);
    request.traffic.input_tokens = 8192;
    request.layout = *parse_worker_layout(layout);
    return best_rate(request);
  };
  EXPECT_NEAR(rate("tp=4,dp=4,ep=4,pp=4") / rate("tp=64"), 3, 0.6);
}

// Small chunks favour the speed of answers, large ones the first token.
TEST(GptMoe, ChunksTradeTheFirstTokenAgainstTheOthers) {
  SearchRequest request = gpt_moe("gb200-nvl72", "nvfp4", 64);
  request.layout = *parse_worker_layout("tp=8,dp=8");
  request.limits.tpot_s = 0, request.traffic.concurrency = 64;
  double ttft = 1e9, tpot = 0;
  for (double chunk : {512.0, 2048.0, 8192.0}) {
    request.engine.budget_tokens = chunk;
    Estimate now = search(request)->ranked.at(0).estimate;
    EXPECT_LT(now.ttft_s, ttft * 1.001) << chunk;
    EXPECT_GT(now.tpot_s, tpot * 0.999) << chunk;
    ttft = now.ttft_s, tpot = now.tpot_s;
  }
}

}  // namespace
}  // namespace tessera::plan::serving
