// Everything that may happen to a checkpoint on disk, or to the process that writes one.
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <random>

#include "checkpoint/boxes.h"
#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing.h"
#include "checkpoint/testing_pieces.h"
#include "checkpoint/testing_save.h"
#include "checkpoint/weight_reader.h"

extern char** environ;

namespace tessera::checkpoint {
namespace {

using namespace testing;
namespace fs = std::filesystem;

// Steps 6 and 7 of a run of two ranks, in small files.
class DamagedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int64_t step : {6, 7}) {
      auto saved = save_as_ranks({.directory = directory_.path(), .model = model_, .max_file_bytes = 12000},
                                 {.step = step, .layout = *parse_layout("fsdp=2")});
      ASSERT_TRUE(saved[0].ok()) << saved[0].error().message;
    }
  }
  // Reading everything, in the mode of a run that trusts only what it touches.
  Status read_all() {
    auto reader = CheckpointReader::open(newest_ / "");  // a name with a slash at its end
    if (!reader) return reader.error();
    auto wrong = wrong_elements(**reader, model_, {}, *parse_layout("tp=2"), 0, 7);
    if (!wrong) return wrong.error();
    EXPECT_EQ(*wrong, 0);
    return {};
  }
  std::string some_file(const char* stem) {
    for (const auto& entry : fs::directory_iterator(newest_))
      if (entry.path().filename().string().starts_with(stem)) return entry.path().filename().string();
    return "";
  }

  TemporaryDirectory directory_;
  ModelSpec model_ = tiny_model(false);
  fs::path newest_ = directory_.path() / "step-7";
};

TEST_F(DamagedCheckpoint, FlippedBitNamesFileTensorRowsAndTheOlderCheckpoint) {
  auto reader = CheckpointReader::open(newest_);
  ASSERT_TRUE(reader.ok());
  const Manifest& manifest = (*reader)->manifest();
  auto master = std::find_if(manifest.arrays.begin(), manifest.arrays.end(), [](const ManifestArray& entry) {
    return entry.array.tensor == "model.layers.1.mlp.up_proj.weight" &&
           entry.array.content == StateKind::master;
  });
  std::string file = manifest.files[master->array.file].name;
  flip_bit(newest_ / file, master->array.begin + 4 * 16 * 3, 6);  // row 3 of 24
  Status status = read_all();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::data_loss);
  EXPECT_TRUE(mentions(status.error().message,
                       {"checkpoint step-7", file.c_str(), "master of tensor model.layers.1.mlp.up_proj.weight",
                        "rows 0..11", "but the manifest says", "try step-6"}));
}

TEST_F(DamagedCheckpoint, FlippedBitInAWeightIsNamedByWhoServesItAndOthersStillRead) {
  auto reader = CheckpointReader::open(newest_);
  ASSERT_TRUE(reader.ok());
  const Manifest& manifest = (*reader)->manifest();
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  auto weight = std::find_if(manifest.arrays.begin(), manifest.arrays.end(), [&](const ManifestArray& entry) {
    return entry.array.tensor == name && !entry.array.content;
  });
  const std::vector<int64_t>& shape = weight->array.shape;
  ASSERT_EQ(weight->extents.size(), 2u) << "one for each rank that saved";
  auto item = static_cast<int64_t>(c10::elementSize(weight->array.dtype));
  flip_bit(newest_ / manifest.files[weight->array.file].name, weight->array.begin + item * shape[1] * 3, 2);
  auto weights = WeightReader::open(newest_);
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  Extent lower{.offset = {shape[0] / 2, 0}, .size = {shape[0] / 2, shape[1]}};
  EXPECT_TRUE(weights->read(name, lower, at::kFloat).ok()) << "another rank's rows";
  EXPECT_TRUE(weights->read("model.layers.0.mlp.up_proj.weight", at::kFloat).ok());
  auto whole = weights->read(name, at::kFloat);
  ASSERT_FALSE(whole.ok());
  EXPECT_EQ(whole.error().code, ErrorCode::data_loss);
  EXPECT_TRUE(mentions(whole.error().message, {"checkpoint step-7", "tensor model.layers.1.mlp.up_proj.weight",
                                               "rows 0..11", "but the manifest says", "try step-6"}));
}

TEST_F(DamagedCheckpoint, EveryFlippedBitAnywhereIsFoundByVerify) {
  std::mt19937_64 random(11);
  for (const auto& entry : fs::directory_iterator(newest_)) {
    auto bytes = static_cast<int64_t>(entry.file_size());
    for (int round = 0; round < 6; ++round) {
      int64_t at = static_cast<int64_t>(random() % static_cast<uint64_t>(bytes));
      int bit = static_cast<int>(random() % 8);
      // White space of the manifest carries nothing, so damage to it may go unnoticed only by becoming white
      // space.
      flip_bit(entry.path(), at, bit);
      auto reader = CheckpointReader::open(newest_, Verify::full);
      EXPECT_FALSE(reader.ok()) << entry.path() << " byte " << at << " bit " << bit;
      flip_bit(entry.path(), at, bit);
    }
  }
  EXPECT_TRUE(CheckpointReader::open(newest_, Verify::full).ok());
}

TEST_F(DamagedCheckpoint, TruncatedShardIsRefusedAtOpen) {
  std::string file = some_file("optimizer-00002");
  auto bytes = fs::file_size(newest_ / file);
  fs::resize_file(newest_ / file, bytes - 1);
  Status status = read_all();
  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(mentions(status.error().message, {file.c_str(), "bytes but the manifest says", "try step-6"}));
}

TEST_F(DamagedCheckpoint, MissingShardIsNamed) {
  std::string file = some_file("model-00001");
  fs::remove(newest_ / file);
  Status status = read_all();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::data_loss);
  EXPECT_TRUE(mentions(status.error().message, {file.c_str(), "is missing"}));
  EXPECT_TRUE(mentions(WeightReader::open(newest_).error().message, {file.c_str(), "is missing"}));
}

TEST_F(DamagedCheckpoint, WithoutManifestItIsNoCheckpoint) {
  fs::remove(newest_ / kManifestFile);
  EXPECT_TRUE(mentions(read_all().error().message, {"manifest.json is missing", "never ended"}));
  EXPECT_EQ(latest_checkpoint(directory_.path())->filename(), "step-6");
}

TEST_F(DamagedCheckpoint, NewerFormatIsToldFromDamage) {
  write_text(newest_ / kManifestFile, R"({"format":"tessera-checkpoint","version":2})");
  auto reader = CheckpointReader::open(newest_);
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(mentions(reader.error().message, {"version 2", "reads version 1"}));
}

TEST_F(DamagedCheckpoint, NewestIntactIsTakenAndTheReasonKept) {
  std::string file = some_file("optimizer-00001");
  flip_bit(newest_ / file, static_cast<int64_t>(fs::file_size(newest_ / file)) - 5);
  auto found = open_newest_intact(directory_.path());
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->reader->training().step, 6);
  ASSERT_EQ(found->skipped.size(), 1u);
  EXPECT_TRUE(mentions(found->skipped[0].message, {"step-7", file.c_str()}));
  EXPECT_EQ(*wrong_elements(*found->reader, model_, {}, {}, 0, 6), 0);
  fs::resize_file(directory_.path() / "step-6" / file, 10);
  found = open_newest_intact(directory_.path());
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, ErrorCode::data_loss);
  EXPECT_EQ(open_newest_intact(directory_.path() / "empty").error().code, ErrorCode::not_found);
}

TEST_F(DamagedCheckpoint, AnotherModelsShapesAreRefusedReadably) {
  ModelSpec other = model_;
  other.hidden = 32;
  auto reader = CheckpointReader::open(newest_);
  auto status = (*reader)->check_against(inventory(other));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(
      mentions(status.error().message, {"another model", "model.embed_tokens.weight is [37, 16]", "[37, 32]"}));
}

// ---- full disk ----

TEST(FullDisk, LimitOnFileSizeFailsTheSaveEarlyAndLeavesTheOldOne) {
  TemporaryDirectory directory;
  ModelSpec model = tiny_model(false);
  WriterOptions options{.directory = directory.path(), .model = model};
  ASSERT_TRUE(save_as_ranks(options, {.step = 1})[0].ok());
  rlimit before{}, small{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  small = {.rlim_cur = 16384, .rlim_max = before.rlim_max};
  auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  auto saved = save_as_ranks(options, {.step = 2});
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  ASSERT_FALSE(saved[0].ok());
  EXPECT_EQ(saved[0].error().code, ErrorCode::resource_exhausted);
  EXPECT_TRUE(mentions(saved[0].error().message, {"step 2", "reserve", "model.safetensors"}));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), {}), 1);
  EXPECT_TRUE(CheckpointReader::open(directory.path() / "step-1", Verify::full).ok());
}

TEST(FullDisk, FileSystemWithoutSpaceFailsTheSaveOnAllRanksAndLeavesTheOldOne) {
  TemporaryDirectory directory;
  if (::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=160k") != 0)
    GTEST_SKIP() << "no right to mount a small tmpfs: " << errno_text(errno);
  ModelSpec model = tiny_model(false);  // a checkpoint of it takes about 110 KB
  WriterOptions options{.directory = directory.path(), .model = model};
  auto first = save_as_ranks(options, {.step = 1, .layout = *parse_layout("fsdp=2")});
  auto second = save_as_ranks(options, {.step = 2, .layout = *parse_layout("fsdp=2")});
  auto left = std::distance(fs::directory_iterator(directory.path()), {});
  auto reader = CheckpointReader::open(directory.path() / "step-1", Verify::full);
  bool intact = reader.ok();
  if (intact) reader->reset();
  ::umount(directory.path().c_str());
  ASSERT_TRUE(first[0].ok()) << first[0].error().message;
  for (const auto& status : second) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted) << status.error().message;
    EXPECT_TRUE(mentions(status.error().message, {"rank 0", "No space left on device"}));
  }
  EXPECT_EQ(left, 1);
  EXPECT_TRUE(intact);
}

// ---- killed while saving ----

constexpr const char* kVictimDirectory = "TESSERA_TEST_VICTIM_DIRECTORY";

ModelSpec victim_model() {
  ModelSpec model = tiny_model(false);
  model.vocab = 8000;  // half a megabyte per state: long enough to be hit
  return model;
}

// Run by KilledSave... in a process of its own: saves step after step until it is killed.
TEST(KilledSave, DISABLED_Victim) {
  const char* directory = std::getenv(kVictimDirectory);
  ASSERT_NE(directory, nullptr);
  for (int64_t step = 1; step < 100000; ++step)
    ASSERT_TRUE(
        save_as_ranks({.directory = directory, .model = victim_model(), .keep = 2}, {.step = step})[0].ok());
}

pid_t start_victim(const fs::path& directory) {
  ::setenv(kVictimDirectory, directory.c_str(), 1);
  std::string program = fs::read_symlink("/proc/self/exe").string();
  std::vector<std::string> words = {program, "--gtest_filter=KilledSave.DISABLED_Victim", "--gtest_brief=1",
                                    "--gtest_also_run_disabled_tests"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  return ::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(), environ) == 0 ? child : -1;
}

bool save_under_way(const fs::path& directory) {
  std::error_code ignored;
  for (fs::directory_iterator at(directory, ignored), end; !ignored && at != end; at.increment(ignored))
    if (at->path().filename().string().starts_with(".tmp-")) return true;
  return false;
}

TEST(KilledSave, PreviousCheckpointIsIntactAndTheTornOneIgnoredAndCleaned) {
  TemporaryDirectory directory;
  int torn = 0;
  for (int round = 0; round < 4 && torn < 2; ++round) {
    pid_t child = start_victim(directory.path());
    ASSERT_GT(child, 0);
    Deadline deadline = Deadline::after(30);
    while (list_checkpoints(directory.path()).size() < 2 && !deadline.passed()) ::usleep(1000);
    while (!save_under_way(directory.path()) && !deadline.passed()) ::usleep(100);
    ::usleep(static_cast<useconds_t>(2000 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    torn += save_under_way(directory.path());
    auto found = open_newest_intact(directory.path());
    ASSERT_TRUE(found.ok()) << found.error().message;
    EXPECT_TRUE(found->skipped.empty());
    int64_t step = found->reader->training().step;
    EXPECT_EQ(*wrong_elements(*found->reader, victim_model(), {}, {}, 0, step), 0);
    auto next =
        save_as_ranks({.directory = directory.path(), .model = victim_model(), .keep = 1}, {.step = step + 1});
    ASSERT_TRUE(next[0].ok()) << next[0].error().message;
    EXPECT_FALSE(save_under_way(directory.path()));
    fs::remove_all(directory.path() / fmt::format("step-{}", step + 1));
  }
  EXPECT_GT(torn, 0) << "no kill hit a save";
}

}  // namespace
}  // namespace tessera::checkpoint
