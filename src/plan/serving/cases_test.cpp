#include <gtest/gtest.h>

#include "core/file.h"
#include "plan/catalogue.h"
#include "plan/serving/predict.h"

namespace tessera::plan::serving {
namespace {

const std::string kHead =
    "id,backend,backend_version,model_path,system,precision,mode,isl,osl,gemm_quant_mode,moe_quant_mode,batch_"
    "size,tp_size,"
    "pp_size,attention_dp_size,moe_tp_size,moe_ep_size,prefill_num_workers,decode_num_workers,silicon_ttft_ms,"
    "silicon_tpot_ms,concurrency\n";

ServingCase silicon(const std::string& cells) {
  Result<CsvTable> table = parse_csv(kHead + cells + "\n", "t.csv");
  EXPECT_TRUE(table.ok()) << (table.ok() ? "" : table.error().message);
  Result<std::vector<ServingCase>> cases = read_cases(*table);
  EXPECT_TRUE(cases.ok());
  return cases->front();
}

// The same four ranks appear as tp 16 with moe 4 x 4, and as tp 4 with attention-DP 4 and ep 16.
TEST(SiliconCases, LabelsThatAreProductsAreTakenApart) {
  std::string row = "x,sglang,0.5.9,deepseek-ai/DeepSeek-R1,b200_sxm,fp4,agg,1024,1024,nvfp4,nvfp4,4,";
  EXPECT_EQ(silicon(row + "16,1,1,4,4,,,1,1,4").layout, (WorkerLayout{.tp = 4, .moe_tp = 1, .moe_ep = 4}));
  EXPECT_EQ(silicon(row + "1,1,64,8,8,,,1,1,4").layout, (WorkerLayout{.dp = 8, .moe_tp = 1, .moe_ep = 8}));
  EXPECT_EQ(silicon(row + "4,1,4,1,16,,,1,1,4").layout, (WorkerLayout{.dp = 4, .moe_tp = 1, .moe_ep = 4}));
  EXPECT_EQ(silicon(row + "8,1,1,8,1,,,1,1,4").layout, (WorkerLayout{.tp = 8, .moe_tp = 8}));
  // vLLM's --enable-expert-parallel has no attention-DP.
  std::string vllm = "x,vllm,0.17.0,moonshotai/Kimi-K2.5,b200_sxm,fp4,agg,1024,1024,nvfp4,nvfp4,4,";
  EXPECT_EQ(silicon(vllm + "4,1,4,1,16,,,1,1,4").layout, (WorkerLayout{.tp = 4, .moe_tp = 1, .moe_ep = 4}));
}

TEST(SiliconCases, RowsWithoutWorkersOrWithTotalsAreRefusedWithTheReason) {
  ServingCase apart =
      silicon("x,trtllm,,deepseek-ai/DeepSeek-R1,gb200,fp4,disagg,1024,1024,nvfp4,nvfp4,,,,,,,,,1,1,64");
  EXPECT_NE(apart.refused.find("workers are missing"), std::string::npos) << apart.refused;
  ServingCase total =
      silicon("x,trtllm,,deepseek-ai/DeepSeek-R1,gb200,fp4,agg,1024,1024,nvfp4,nvfp4,8,36,1,1,36,1,,,1,1,8");
  EXPECT_NE(total.refused.find("tp 36"), std::string::npos) << total.refused;
}

TEST(SiliconCases, CopiesOfAMeasurementAreInTheSamePart) {
  std::string row =
      ",sglang,0.5.9,deepseek-ai/DeepSeek-R1,b200_sxm,fp8,agg,1024,1024,fp8,fp8,4,8,1,1,8,1,,,1,1,4";
  std::string copy =
      ",sglang,,deepseek-ai/DeepSeek-V3,b200_sxm,fp8,agg,1024,1024,fp8,fp8,64,8,1,1,8,1,,,1,1,64";
  EXPECT_EQ(silicon("a" + row).setup, silicon("b" + copy).setup);
}

TEST(Cases, TableOfAnotherKindIsRefusedByName) {
  Result<std::vector<ServingCase>> cases = read_cases(*parse_csv("a,b\n1,2\n", "other.csv"));
  ASSERT_FALSE(cases.ok());
  EXPECT_NE(cases.error().message.find("other.csv"), std::string::npos);
}

// Errors as docs/accuracy_serving.md states them, with room for a refit; a broken model goes far beyond.
TEST(PublishedServing, ErrorsStayNearTheStatedOnes) {
  std::string path = std::string(TESSERA_SOURCE_DIR) + "/data/published/serving_cases.csv";
  Result<std::string> text = read_file(path);
  ASSERT_TRUE(text.ok());
  Result<std::vector<ServingCase>> cases = read_cases(*parse_csv(*text, path));
  ASSERT_TRUE(cases.ok());
  ValidationReport report =
      validate(*cases, caching(find_model), EngineCatalogue::built_in(), Intervals::built_in());
  EXPECT_EQ(report.rows.size(), cases->size());
  int seen = 0;
  for (const ErrorSummary& s : report.summary) {
    if (s.group != "all" && s.group != "test part") continue;
    double most = s.metric == "saturated tok_s_gpu" ? 12
                  : s.metric == "tpot_ms"           ? 17
                  : s.metric == "ttft_ms"           ? 45
                                                    : 20;
    EXPECT_LE(s.median_abs_pct, most) << s.group << " " << s.metric;
    EXPECT_LE(s.refused, 70) << s.group;
    ++seen;
  }
  EXPECT_EQ(seen, 8);
}

}  // namespace
}  // namespace tessera::plan::serving
