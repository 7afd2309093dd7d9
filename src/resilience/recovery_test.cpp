// Real processes, real SIGKILL and SIGSTOP: this program launches itself as the workers of small jobs. The
// oracle is a run of one process that nothing disturbs.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "resilience/launcher.h"
#include "resilience/testing_trainer.h"
#include "resilience/worker.h"

namespace tessera::resilience {
namespace {

constexpr int64_t kSteps = 14, kEvery = 4;

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

Job test_job(const std::string& layout, const std::filesystem::path& run_dir) {
  Job job;
  job.model = checkpoint::testing::tiny_model(true);
  job.work = {.seq = 4,
              .micro_batch = 1,
              .global_batch = 12,
              .numerics = Numerics::exact,
              .tp_blocks = 2,
              .seq_chunks = 2};
  job.layout = parse_layout(layout).value();
  job.steps = kSteps;
  job.train = std::make_shared<testing::FakeSource>();
  job.make_trainer = testing::FakeTrainer::create;
  job.run_dir = run_dir;
  job.snapshot_every = kEvery;
  job.disk_checkpoints = !run_dir.empty();
  return job;
}

// The life of a worker: what `tessera train` is to `tessera launch`.
int worker_main() {
  std::string mode = variable("TEST_WORKER", "");
  if (mode == "refuse") {
    std::fprintf(stderr, "error: the configuration is wrong\n");
    return 1;
  }
  Job job = test_job(variable("TEST_LAYOUT", "fsdp=2,ep=2,pp=2"), variable("TEST_RUN_DIR", ""));
  job.snapshot_every = std::atoll(variable("TEST_SNAPSHOT_EVERY", "4").c_str());
  job.checkpoint_every = std::atoll(variable("TEST_CHECKPOINT_EVERY", "0").c_str());
  job.on_step = [](const train::StepReport& report, const train::Trainer&) {
    std::printf("step %ld\n", static_cast<long>(report.step));
    std::fflush(stdout);
  };
  if (mode == "nan") job.make_trainer = [](auto) { return invalid("work: this model cannot be trained"); };
  auto context = worker_context();
  if (!context) return 3;
  auto result = run_job(job, *context);
  if (!result) std::fprintf(stderr, "error: %s\n", result.error().message.c_str());
  return result ? 0 : 2;
}

std::string undisturbed_hash() {
  static const std::string hash = run_job(test_job("dp=1", ""), WorkerContext{})->weights_hash;
  return hash;
}

class Recovery : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("tessera-recovery-{}", ::getpid());
    std::filesystem::remove_all(folder_);
    options_.workers = 4;
    options_.command = {std::filesystem::read_symlink("/proc/self/exe").string()};
    options_.environment = [this](int64_t worker) {
      auto variables = variables_;
      variables.emplace("TEST_WORKER", "train");
      if (faults_.count(worker)) variables["TESSERA_FAULT"] = faults_.at(worker);
      return variables;
    };
    options_.on_line = [this](const OutputLine& line, int64_t) { lines_.push_back(line.text); };
  }
  void TearDown() override {
    if (HasFailure())
      for (const auto& line : lines_) std::fprintf(stderr, "| %s\n", line.c_str());
    std::filesystem::remove_all(folder_);
  }

  void use_disk(int64_t every) {
    variables_["TEST_RUN_DIR"] = folder_.string();
    variables_["TEST_CHECKPOINT_EVERY"] = std::to_string(every);
    options_.run_dir = folder_;
  }
  LaunchResult launched() {
    auto result = launch(options_);
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    return result.ok() ? *result : LaunchResult{};
  }
  static std::string hash_of(const LaunchResult& result) {
    if (result.result.empty()) return "no result";
    return nlohmann::json::parse(result.result)["weights_hash"];
  }
  static const Event& only(const LaunchResult& result, const std::string& name, size_t which = 0) {
    static const Event none;
    for (const Event& event : result.events)
      if (event.event == name && which-- == 0) return event;
    ADD_FAILURE() << "no event " << name;
    return none;
  }

  std::filesystem::path folder_;
  LaunchOptions options_;
  std::map<std::string, std::string> variables_;
  std::map<int64_t, std::string> faults_;
  std::vector<std::string> lines_;
};

TEST_F(Recovery, UndisturbedJobEqualsOneProcess) {
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(result.generations, 1);
}

TEST_F(Recovery, KilledWorkerIsReplacedAndItsStateComesFromANeighboursMemory) {
  faults_[2] = "kill@10:middle";
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(result.generations, 2);
  EXPECT_EQ(result.restarts, 1);
  const Event &lost = only(result, "lost"), &resumed = only(result, "resumed");
  EXPECT_EQ(lost.rank, 2);
  EXPECT_LT(*lost.detect_s, 2.0);
  EXPECT_EQ(resumed.source, "memory");
  EXPECT_EQ(resumed.step, 8);
  EXPECT_LE(*resumed.steps_redone, kEvery);
  EXPECT_LT(*resumed.resume_s, 10.0);
}

TEST_F(Recovery, SpareTakesOverWithoutARestart) {
  options_.spares = 1;
  faults_[0] = "kill@6:begin";  // the rank that other systems cannot lose
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(result.restarts, 0);
  EXPECT_EQ(only(result, "resumed").source, "memory");
}

TEST_F(Recovery, SecondLossRightAfterTheFirstIsRecoveredFromMemoryToo) {
  faults_[1] = "kill@9:middle";
  faults_[2] = "kill@10:begin";  // its neighbour held what the first one lost
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(result.generations, 3);
  EXPECT_EQ(only(result, "resumed", 1).source, "memory");
}

TEST_F(Recovery, WithoutReplacementFewerRanksGoOnWithEqualBits) {
  options_.max_restarts = 0;
  faults_[3] = "kill@6:middle";
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(parse_layout(*only(result, "formed", 1).layout)->processes(), 3);
  EXPECT_EQ(only(result, "resumed").source, "memory");
}

TEST_F(Recovery, StoppedWorkerIsNamedKilledAndReplaced) {
  options_.silence_s = 1.5;
  faults_[1] = "stop@6:middle";
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  const Event& lost = only(result, "lost");
  EXPECT_EQ(lost.rank, 1);
  EXPECT_LT(*lost.detect_s, 5.0);
  EXPECT_TRUE(lost.step == 6 || lost.step == 7) << *lost.step;  // the signal may come late on a busy machine
  EXPECT_NE(lost.detail.find("no sign of life"), std::string::npos) << lost.detail;
  EXPECT_NE(lost.detail.find(fmt::format("in step {}, in ", *lost.step)), std::string::npos) << lost.detail;
}

TEST_F(Recovery, AllWorkersKilledComeBackFromDisk) {
  use_disk(5);
  for (int64_t worker = 0; worker < 4; ++worker) faults_[worker] = "kill@13:together";
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  const Event& last = result.events[result.events.size() - 2];
  EXPECT_EQ(last.event, "resumed");
  EXPECT_EQ(last.source, "disk");
  EXPECT_TRUE(last.step == 5 || last.step == 10) << *last.step;  // the save of 10 may still have been under way
  std::ifstream file(folder_ / "events.jsonl");
  std::string line;
  std::vector<std::string> names;
  while (std::getline(file, line)) names.push_back(nlohmann::json::parse(line)["event"]);
  EXPECT_EQ(names.size(), result.events.size());
  EXPECT_EQ(names.back(), "finished");
}

TEST_F(Recovery, KillDuringASaveLeavesThePreviousCheckpoint) {
  use_disk(5);
  variables_["TEST_SNAPSHOT_EVERY"] = "0";
  faults_[0] = "kill@10:save";
  LaunchResult result = launched();
  EXPECT_EQ(hash_of(result), undisturbed_hash());
  EXPECT_EQ(only(result, "resumed").source, "disk");
  EXPECT_EQ(only(result, "resumed").step, 5);
}

TEST_F(Recovery, StopRequestSavesAndTheNextRunGoesOnWithEqualBits) {
  use_disk(0);
  StopRequest stop;
  options_.stop = &stop;
  options_.on_line = [&](const OutputLine& line, int64_t) {
    if (line.text != "step 3") return;
    stop.signal = SIGTERM;
    ++stop.count;
  };
  LaunchResult first = launched();
  EXPECT_TRUE(first.stopped);
  int64_t steps = nlohmann::json::parse(first.result)["steps"];
  EXPECT_LT(steps, kSteps);
  options_.stop = nullptr;
  variables_["TEST_LAYOUT"] = "tp=2,pp=2";
  LaunchResult second = launched();
  EXPECT_EQ(only(second, "started").step, steps);
  EXPECT_EQ(hash_of(second), undisturbed_hash());
}

TEST_F(Recovery, MistakeOfTheUserEndsTheJobAndIsPrintedOnce) {
  options_.workers = 2;
  variables_["TEST_WORKER"] = "refuse";
  auto result = launch(options_);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("before it joined the job"), std::string::npos);
  EXPECT_EQ(lines_, (std::vector<std::string>{"error: the configuration is wrong"}));
}

TEST_F(Recovery, ErrorThatNoRestartCuresEndsTheJob) {
  options_.workers = 2;
  variables_["TEST_LAYOUT"] = "dp=2";
  variables_["TEST_WORKER"] = "nan";
  auto result = launch(options_);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message, "work: this model cannot be trained");
}

TEST_F(Recovery, WrongNumberOfWorkersIsNamed) {
  options_.workers = 2;
  auto result = launch(options_);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message, "the layout has 4 ranks, but 2 workers were started; give -n 4");
}

}  // namespace
}  // namespace tessera::resilience

int main(int argc, char** argv) {
  if (std::getenv("TEST_WORKER")) return tessera::resilience::worker_main();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
