#include "checkpoint/writer.h"

#include <nlohmann/json.hpp>
#include <random>

#include "checkpoint/builder.h"
#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing.h"
#include "checkpoint/testing_pieces.h"
#include "checkpoint/testing_save.h"
#include "checkpoint/weight_reader.h"

namespace tessera::checkpoint {
namespace {

using namespace testing;

TEST(Checkpoint, WrittenInOneLayoutReadInAnotherIsEqualBitwise) {
  std::mt19937 random(7);
  const std::vector<const char*> dense = {"dp=1", "dp=2", "fsdp=3",           "tp=2",
                                          "tp=4", "pp=2", "fsdp=2,tp=2,pp=2", "dp=2,fsdp=2"};
  const std::vector<const char*> moe = {"dp=1", "fsdp=4,ep=4", "fsdp=2,ep=2,tp=2", "fsdp=4,ep=2",
                                        "pp=2,fsdp=2,ep=2"};
  for (int round = 0; round < 12; ++round) {
    const auto& layouts = round % 2 ? moe : dense;
    ModelSpec model = tiny_model(round % 2, round % 4 >= 2);
    Layout from = *parse_layout(layouts[random() % layouts.size()]);
    Layout to = *parse_layout(layouts[random() % layouts.size()]);
    Work work{.precision = round % 3 ? Precision::bf16 : Precision::float32, .tp_blocks = 4};
    TemporaryDirectory directory;
    // Small files and extents, so that tensors are spread over many of both.
    WriterOptions options{
        .directory = directory.path(), .model = model, .max_file_bytes = 20000, .extent_bytes = 500};
    auto saved = save_as_ranks(options, {.step = 5, .work = work, .layout = from});
    for (const auto& status : saved) ASSERT_TRUE(status.ok()) << status.error().message;
    auto reader = CheckpointReader::open(directory.path() / "step-5");
    ASSERT_TRUE(reader.ok()) << reader.error().message;
    for (int64_t rank = 0; rank < to.processes(); ++rank) {
      auto wrong = wrong_elements(**reader, model, work, to, rank, 5);
      ASSERT_TRUE(wrong.ok()) << wrong.error().message;
      EXPECT_EQ(*wrong, 0) << to_string(from) << " -> " << to_string(to);
    }
    EXPECT_TRUE((*reader)->verify().empty());
    EXPECT_TRUE((*reader)->check_against(inventory(model)).ok());
  }
}

TEST(Checkpoint, WeightsAreTheMastersRoundedToNearestEven) {
  ModelSpec model = tiny_model(false);
  for (Precision precision : {Precision::float32, Precision::bf16}) {
    TemporaryDirectory directory;
    Work work{.precision = precision};
    auto saved = save_as_ranks({.directory = directory.path(), .model = model},
                               {.step = 1, .work = work, .layout = *parse_layout("fsdp=2,tp=2")});
    ASSERT_TRUE(saved[0].ok()) << saved[0].error().message;
    auto weights = WeightReader::open(directory.path() / "step-1");
    ASSERT_TRUE(weights.ok()) << weights.error().message;
    ASSERT_TRUE(weights->check_against(inventory(model)).ok());
    for (const TensorSpec& tensor : inventory(model)) {
      at::ScalarType stored = precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
      EXPECT_EQ(*weights->dtype(tensor.name), stored);
      at::Tensor got = *weights->read(tensor.name, at::kFloat);
      at::Tensor expected =
          state_of_box(tensor, StateKind::master, whole_box(tensor.shape), 1).to(stored).to(at::kFloat);
      EXPECT_EQ(std::memcmp(got.const_data_ptr(), expected.const_data_ptr(), static_cast<size_t>(got.nbytes())),
                0);
    }
  }
}

TEST(Checkpoint, RecordAndSideFilesComeBack) {
  TemporaryDirectory directory;
  write_text(directory.path() / "tokenizer.json", R"({"version":"1.0"})");
  WriterOptions options{.directory = directory.path() / "run",
                        .model = tiny_model(true),
                        .copies = {directory.path() / "tokenizer.json"}};
  TrainingRecord record{
      .step = 1200,
      .seed = UINT64_MAX,
      .work = {.seq = 128, .global_batch = 24, .precision = Precision::bf16, .numerics = Numerics::exact},
      .layout = *parse_layout("fsdp=2,ep=2,order=fsdp-tp-cp-dp-pp"),
      .optimizer = "learning_rate = 0.001",
      .extra = R"({"loss":[1.5,2]})"};
  auto saved = save_as_ranks(options, record);
  ASSERT_TRUE(saved[0].ok()) << saved[0].error().message;
  auto reader = CheckpointReader::open(saved[0]->path);
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  const TrainingRecord& back = (*reader)->training();
  EXPECT_EQ(back.step, 1200);
  EXPECT_EQ(back.seed, UINT64_MAX);
  EXPECT_EQ(back.work.seq, 128);
  EXPECT_EQ(back.work.global_batch, 24);
  EXPECT_EQ(back.work.precision, Precision::bf16);
  EXPECT_EQ(back.work.numerics, Numerics::exact);
  EXPECT_EQ(back.layout, record.layout);
  EXPECT_EQ(back.optimizer, record.optimizer);
  EXPECT_EQ(nlohmann::json::parse(back.extra), nlohmann::json::parse(record.extra));
  EXPECT_EQ(*read_file(saved[0]->path / "tokenizer.json"), R"({"version":"1.0"})");
  auto model = load_model_spec(saved[0]->path);
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ(inventory(*model).size(), inventory(options.model).size());
}

TEST(Checkpoint, StateChangedAfterStartIsNotSaved) {
  ModelSpec model = tiny_model(false);
  TemporaryDirectory directory;
  CheckpointWriter writer({.directory = directory.path(), .model = model}, make_single_group());
  auto state = pieces_of_all(model, {}, {});
  ASSERT_TRUE(writer.start({.step = 1}, state).ok());
  for (Piece& piece : state) piece.values.fill_(-7);
  ASSERT_TRUE(writer.start({.step = 2}, state).ok());  // waits for the first
  ASSERT_TRUE(writer.wait().ok());
  auto first = CheckpointReader::open(directory.path() / "step-1"),
       second = CheckpointReader::open(directory.path() / "step-2");
  EXPECT_EQ(*wrong_elements(**first, model, {}, {}, 0), 0);
  EXPECT_GT(*wrong_elements(**second, model, {}, {}, 0), 0);
}

TEST(Checkpoint, OnlyTheNewestStayAndASecondSaveOfAStepReplacesIt) {
  ModelSpec model = tiny_model(false);
  TemporaryDirectory directory;
  CheckpointWriter writer({.directory = directory.path(), .model = model, .keep = 2}, make_single_group());
  for (int64_t step : {1, 2, 3, 3}) {
    ASSERT_TRUE(writer.start({.step = step, .seed = 9}, pieces_of_all(model, {}, {})).ok());
    ASSERT_TRUE(writer.wait().ok()) << writer.wait().error().message;
  }
  auto left = list_checkpoints(directory.path());
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(step_of(left[0]), 3);
  EXPECT_EQ(step_of(left[1]), 2);
  EXPECT_EQ(*latest_checkpoint(directory.path()), left[0]);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 2);  // no leftovers
  EXPECT_TRUE(CheckpointReader::open(left[0], Verify::full).ok());
}

TEST(Checkpoint, ValuesThatNoRankGivesFailTheSaveOnAllRanksAndLeaveTheOldOne) {
  ModelSpec model = tiny_model(false);
  TemporaryDirectory directory;
  TrainingRecord record{.step = 1, .layout = *parse_layout("fsdp=2")};
  ASSERT_TRUE(save_as_ranks({.directory = directory.path(), .model = model}, record)[0].ok());
  record.step = 2;
  auto without_norm = [](int64_t rank, std::vector<Piece>& pieces) {
    if (rank == 1)
      std::erase_if(pieces, [](const Piece& p) {
        return p.tensor == "model.norm.weight" && p.kind == StateKind::moment1;
      });
  };
  for (const auto& status :
       save_as_ranks({.directory = directory.path(), .model = model}, record, without_norm)) {
    ASSERT_FALSE(status.ok());
    EXPECT_TRUE(mentions(status.error().message,
                         {"step 2", "exp_avg of tensor model.norm.weight", "rows 8..15", "no rank"}));
  }
  auto unknown_tensor = [](int64_t rank, std::vector<Piece>& pieces) {
    if (rank == 1) pieces[0].tensor = "model.other";
  };
  for (const auto& status :
       save_as_ranks({.directory = directory.path(), .model = model}, record, unknown_tensor)) {
    ASSERT_FALSE(status.ok());
    EXPECT_TRUE(mentions(status.error().message, {"rank 1", "model.other", "inventory"}));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
  EXPECT_TRUE(CheckpointReader::open(directory.path() / "step-1", Verify::full).ok());
}

TEST(Checkpoint, ErrorOfASaveIsGivenByTheNextStartWhenNobodyAsked) {
  ModelSpec model = tiny_model(false);
  TemporaryDirectory directory;
  CheckpointWriter writer({.directory = directory.path(), .model = model}, make_single_group());
  EXPECT_FALSE(writer.wait().ok());
  ASSERT_TRUE(writer.start({.step = 1}, {}).ok());  // nothing to save: an error in the background
  auto before = writer.start({.step = 2}, pieces_of_all(model, {}, {}));
  ASSERT_FALSE(before.ok());
  EXPECT_TRUE(mentions(before.error().message, {"step 1", "no rank"}));
  EXPECT_TRUE(writer.wait().ok());
}

}  // namespace
}  // namespace tessera::checkpoint
