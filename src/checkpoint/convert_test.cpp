#include "checkpoint/convert.h"

#include "checkpoint/reader.h"
#include "checkpoint/testing.h"
#include "checkpoint/testing_pieces.h"
#include "checkpoint/testing_save.h"
#include "checkpoint/weight_reader.h"

namespace tessera::checkpoint {
namespace {

using namespace testing;
namespace fs = std::filesystem;

class Convert : public ::testing::Test {
 protected:
  void SetUp() override {
    auto saved =
        save_as_ranks({.directory = directory_.path(), .model = model_},
                      {.step = 3, .work = {.precision = Precision::bf16}, .layout = *parse_layout("tp=2")});
    ASSERT_TRUE(saved[0].ok()) << saved[0].error().message;
  }
  // Elements of the directory's weights that are not the masters in `dtype`.
  int64_t wrong_weights(const fs::path& directory, at::ScalarType dtype) {
    auto weights = WeightReader::open(directory);
    EXPECT_TRUE(weights.ok()) << weights.error().message;
    int64_t wrong = 0;
    for (const TensorSpec& tensor : inventory(model_)) {
      EXPECT_EQ(*weights->dtype(tensor.name), dtype);
      at::Tensor got = *weights->read(tensor.name, at::kFloat);
      at::Tensor expected =
          state_of_box(tensor, StateKind::master, whole_box(tensor.shape), 3).to(dtype).to(at::kFloat);
      for (int64_t i = 0; i < got.numel(); ++i)
        wrong += got.const_data_ptr<float>()[i] != expected.const_data_ptr<float>()[i];
    }
    return wrong;
  }

  TemporaryDirectory directory_;
  ModelSpec model_ = tiny_model(true);
  fs::path checkpoint_ = directory_.path() / "step-3", to_ = directory_.path() / "out";
};

TEST_F(Convert, ExportToFloat32GivesTheMasters) {
  auto status = export_model(checkpoint_, to_, {.dtype = at::kFloat, .max_file_bytes = 9000});
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(wrong_weights(to_, at::kFloat), 0);
  EXPECT_FALSE(fs::exists(to_ / kManifestFile));
  EXPECT_TRUE(fs::exists(to_ / "model.safetensors.index.json"));
  EXPECT_TRUE(mentions(*read_file(to_ / "config.json"), {R"("torch_dtype": "float32")"}));
  ASSERT_TRUE(load_model_spec(to_).ok());
  EXPECT_TRUE(WeightReader::open(to_)->check_against(inventory(*load_model_spec(to_))).ok());
}

TEST_F(Convert, ExportOfAnExportIsAHuggingFaceDirectoryAgain) {
  ASSERT_TRUE(export_model(checkpoint_, to_, {.dtype = at::kFloat}).ok());
  auto status = export_model(to_, directory_.path() / "again", {.dtype = at::kBFloat16});
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(wrong_weights(directory_.path() / "again", at::kBFloat16), 0);
}

TEST_F(Convert, ReshardedCheckpointHoldsTheSameState) {
  auto status = reshard(checkpoint_, to_ / "", {.max_file_bytes = 9000});
  ASSERT_TRUE(status.ok()) << status.error().message;
  auto reader = CheckpointReader::open(to_, Verify::full);
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  EXPECT_EQ(*wrong_elements(**reader, model_, {}, {}, 0, 3), 0);
  EXPECT_GT((*reader)->manifest().files.size(), 10u);
  EXPECT_EQ((*reader)->training().layout, *parse_layout("tp=2"));
}

TEST_F(Convert, DamagedSourceLeavesNoTarget) {
  for (const auto& entry : fs::directory_iterator(checkpoint_))
    if (entry.path().filename() == "optimizer.safetensors")
      flip_bit(entry.path(), static_cast<int64_t>(entry.file_size()) / 2);
  auto status = reshard(checkpoint_, to_, {});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::data_loss);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path()), {}), 1);
}

TEST_F(Convert, ExistingTargetIsNotOverwritten) {
  fs::create_directory(to_);
  auto status = export_model(checkpoint_, to_, {});
  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(mentions(status.error().message, {"exists already"}));
}

// Run by tests/checkpoint_test.py, which reads the result with safetensors and transformers.
TEST(ForPython, DISABLED_WriteEveryArchitecture) {
  const char* target = std::getenv("TESSERA_TEST_OUTPUT");
  ASSERT_NE(target, nullptr);
  for (Architecture architecture :
       {Architecture::llama, Architecture::qwen3, Architecture::mixtral, Architecture::qwen3_moe}) {
    bool moe = architecture == Architecture::mixtral || architecture == Architecture::qwen3_moe;
    for (Precision precision : {Precision::float32, Precision::bf16}) {
      ModelSpec model = tiny_model(moe);
      model.architecture = architecture;
      model.qk_norm = architecture == Architecture::qwen3 || architecture == Architecture::qwen3_moe;
      if (architecture == Architecture::mixtral) model.ffn = model.moe.ffn;
      bool sharded = precision == Precision::bf16;
      fs::path directory =
          fs::path(target) / fmt::format("{}-{}", to_string(architecture), to_string(precision));
      auto saved =
          save_as_ranks({.directory = directory, .model = model, .max_file_bytes = sharded ? 9000 : 1 << 30},
                        {.step = 1, .work = {.precision = precision}, .layout = *parse_layout("fsdp=2,tp=2")});
      ASSERT_TRUE(saved[0].ok()) << saved[0].error().message;
    }
  }
}

}  // namespace
}  // namespace tessera::checkpoint
