#include "plan/validate/training_case.h"

#include <gtest/gtest.h>

namespace tessera::plan {
namespace {

const std::string kColumns =
    "id,source,model,gpu,n_gpus,seq_len,global_batch,micro_batch,tp,pp,n_layers,hidden,ffn_hidden,n_heads,"
    "n_kv_heads,head_dim,vocab,params_total_B,dtype\n";

TrainingCase row(const std::string& model, const std::string& gpus, const std::string& tp,
                 const std::string& ffn, const std::string& parameters) {
  std::string cells = "x,s," + model + ",H100-SXM-80GB," + gpus + ",4096,128,1," + tp + ",1,32,4544," + ffn +
                      ",71,1,64,65024," + parameters + ",bf16\n";
  return read_training_cases(*parse_csv(kColumns + cells, "t.csv"))->front();
}

TEST(TrainingCases, HolesAndWordsInPlaceOfNumbersAreToldApart) {
  EXPECT_NE(row("Llama", "8", "", "18176", "7").refused.find("column tp is empty"), std::string::npos);
  EXPECT_NE(row("Llama", "8", "two", "18176", "7").refused.find("column tp: got 'two'"), std::string::npos);
  EXPECT_NE(row("Llama", "-8", "1", "18176", "7").refused.find("got '-8'"), std::string::npos);
  EXPECT_NE(row("", "8", "1", "18176", "7").refused.find("model is empty"), std::string::npos);
  EXPECT_NE(row("Llama", "8", "1", "", "7").refused.find("ffn_hidden is empty"), std::string::npos);
}

// Falcon-7B: 6.9 G parameters with two matrices in the FFN, 9.5 G with three. No list of families has it.
TEST(TrainingCases, AnUnknownFamilysGateIsCountedAndNamed) {
  TrainingCase plain = row("Falcon-7B", "8", "1", "18176", "6.9"),
               gated = row("Falcon-7B", "8", "1", "18176", "9.5");
  ASSERT_EQ(plain.refused, "");
  EXPECT_FALSE(plain.setup.model.kinds[0].ffn.gated);
  EXPECT_TRUE(gated.setup.model.kinds[0].ffn.gated);
  EXPECT_EQ(plain.assumed.at("ffn"), "without a gate, as the parameters count");
  EXPECT_EQ(row("Falcon-7B", "8", "1", "18176", "").assumed.at("ffn"), "with a gate");
  EXPECT_FALSE(row("Llama", "8", "1", "18176", "").assumed.contains("ffn"));
}

}  // namespace
}  // namespace tessera::plan
