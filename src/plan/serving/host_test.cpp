#include "plan/serving/host.h"

#include "core/numbers.h"
#include "plan/serving/testing.h"

namespace tessera::plan::serving {
namespace {

Deployment cpu_like(const std::string& model) {
  Deployment d = on_ideal(model, {});
  d.device = {.name = "host",
              .generation = "host",
              .bf16 = 5e11,
              .attention = 2e11,
              .memory_bytes = 2.4e10,
              .memory_bytes_per_s = 3.5e10};
  d.engine.step_s = 4e-4;
  d.engine.sequence_s = 3e-5;
  d.engine.layer_s = 2e-5;
  d.engine.cache_memory = 0.6;
  return d;
}

std::vector<TimedSteps> timed_on(const Deployment& truth) {
  StepModel model(truth);
  std::vector<TimedSteps> timed;
  auto add = [&](std::vector<StepLoad> steps) {
    double seconds = 0;
    for (const StepLoad& load : steps) seconds += model.seconds(load);
    timed.push_back({std::move(steps), seconds});
  };
  for (double sequences : {1., 2., 4., 8., 16., 32.}) add({decode_load(sequences, 40)});
  for (double sequences : {1., 4., 16.}) add({decode_load(sequences, 1000)});
  for (int64_t tokens : {4, 16, 64, 128, 256, 512, 1024, 2048}) add(prompt_loads(tokens, 512));
  return timed;
}

// Device and engine unknown: only what is no matter of time is given.
Deployment unknown(Deployment truth) {
  truth.device.bf16 = truth.device.attention = truth.device.memory_bytes_per_s = 0;
  Engine engine;
  engine.name = "tessera";
  engine.expert_skew = truth.engine.expert_skew;
  truth.engine = engine;
  return truth;
}

TEST(ServingHost, FitPredictsLoadsThatWereNotTimed) {
  Deployment truth = cpu_like("qwen2.5-0.5b");
  auto fit = fit_host(unknown(truth), timed_on(truth));
  ASSERT_TRUE(fit.ok()) << fit.error().message;
  EXPECT_LT(fit->mean_error, 0.02);
  EXPECT_LT(fit->max_error, 0.06);
  Deployment found = truth;
  found.device = fit->host.device;
  found.engine = fit->host.engine;
  StepModel expected(truth), fitted(found);
  for (StepLoad load :
       {StepLoad{.decode_sequences = 6, .decode_context = 300},
        StepLoad{.decode_sequences = 24, .decode_context = 500},
        StepLoad{.prefill_tokens = 300, .prefill_span = 700, .decode_sequences = 5, .decode_context = 200}})
    EXPECT_NEAR(fitted.seconds(load) / expected.seconds(load), 1, 0.06);
}

TEST(ServingHost, PromptLoadsAreChunksOfOnePrompt) {
  auto loads = prompt_loads(1100, 512);
  ASSERT_EQ(loads.size(), 3u);
  double tokens = 0, pairs = 0, ends = 0;
  for (const StepLoad& load : loads)
    tokens += load.prefill_tokens, pairs += load.prefill_tokens * load.prefill_span,
        ends += load.prefill_sequences;
  EXPECT_EQ(tokens, 1100);
  EXPECT_EQ(pairs, 1100 * 1101 / 2);  // 1 + 2 + ... + 1100
  EXPECT_EQ(ends, 1);
}

TEST(ServingHost, FileKeepsEveryConstant) {
  Deployment truth = cpu_like("qwen2.5-0.5b");
  ServingHost host{.device = truth.device, .engine = truth.engine, .provenance = {{"constants", "by hand"}}};
  auto read = parse_serving_host(to_toml(host), "here.toml");
  ASSERT_TRUE(read.ok()) << read.error().message;
  for (const EngineField& field : engine_fields())
    EXPECT_NEAR(read->engine.*field.member, host.engine.*field.member, 1e-4 * host.engine.*field.member)
        << field.name;
  EXPECT_NEAR(read->device.memory_bytes_per_s, 3.5e10, 1e6);
  EXPECT_EQ(read->provenance, host.provenance);
}

TEST(ServingHost, FaultsNameFileKeyAndWhatToTry) {
  auto message = [](const std::string& text) {
    auto read = parse_serving_host(text, "here.toml");
    return read.ok() ? "" : read.error().message;
  };
  EXPECT_NE(message("cores = 2\n").find("tessera calibrate --serve"), std::string::npos);
  std::string good =
      to_toml(ServingHost{.device = cpu_like("qwen2.5-0.5b").device, .engine = {}, .provenance = {}});
  auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return message(text);
  };
  EXPECT_NE(with("flops_per_s", "flop_per_s").find("flops_per_s"), std::string::npos);
  EXPECT_NE(with("memory_bytes = ", "memory_bytes = -").find("here.toml"), std::string::npos);
  EXPECT_NE(with("step_s = ", "step_s = \"a\" # ").find("step_s must be a number"), std::string::npos);
}

TEST(ServingHost, NothingTimedIsRefused) {
  EXPECT_FALSE(fit_host(unknown(cpu_like("qwen2.5-0.5b")), {}).ok());
}

}  // namespace
}  // namespace tessera::plan::serving
