#include "resilience/context.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

namespace tessera::resilience {
namespace {

Environment variables(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
}

TEST(Context, EmptyEnvironmentIsAlone) {
  EXPECT_EQ(worker_context(variables({}))->kind, WorkerContext::alone);
}

TEST(Context, TorchrunVariablesAreRead) {
  auto context = worker_context(variables({{"RANK", "3"},
                                           {"WORLD_SIZE", "8"},
                                           {"LOCAL_RANK", "1"},
                                           {"MASTER_ADDR", "node7"},
                                           {"MASTER_PORT", "1234"}}));
  EXPECT_EQ(context->kind, WorkerContext::outer);
  EXPECT_EQ(context->rank, 3);
  EXPECT_EQ(context->size, 8);
  EXPECT_EQ(context->local_rank, 1);
  EXPECT_EQ(context->store, "node7:1235");
}

TEST(Context, SlurmListGivesItsFirstHost) {
  for (auto [list, host] : {std::pair{"node[03-07,12]", "node03"}, std::pair{"a,b", "a"}, std::pair{"c", "c"},
                            std::pair{"gpu[1,4-5]", "gpu1"}}) {
    auto job =
        outer_job(variables({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_NODELIST", list}}));
    EXPECT_EQ((*job)->launcher, "slurm");
    EXPECT_EQ((*job)->master_address, host);
  }
}

TEST(Context, OpenMpiVariablesAreRead) {
  auto job = outer_job(variables({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}}));
  EXPECT_EQ((*job)->launcher, "open mpi");
}

TEST(Context, TesseraLaunchComesBeforeAnOuterLauncher) {
  auto context = worker_context(variables({{"TESSERA_STORE", "h:9"},
                                           {"TESSERA_WORKER", "5"},
                                           {"TESSERA_TOKEN", "t"},
                                           {"RANK", "0"},
                                           {"WORLD_SIZE", "4"}}));
  EXPECT_EQ(context->kind, WorkerContext::launched);
  EXPECT_EQ(context->worker, 5);
  EXPECT_EQ(context->token, "t");
}

TEST(Context, TokenComesThroughADescriptor) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_EQ(::write(ends[1], "secret", 6), 6);
  ::close(ends[1]);
  auto context = worker_context(variables(
      {{"TESSERA_STORE", "h:9"}, {"TESSERA_WORKER", "0"}, {"TESSERA_TOKEN_FD", std::to_string(ends[0])}}));
  EXPECT_EQ(context->token, "secret");
}

TEST(Context, MalformedRankIsNamed) {
  auto context = worker_context(variables({{"RANK", "x"}, {"WORLD_SIZE", "4"}}));
  ASSERT_FALSE(context.ok());
  EXPECT_EQ(context.error().message, "environment variable RANK must be a count, got 'x'");
  EXPECT_FALSE(worker_context(variables({{"RANK", "4"}, {"WORLD_SIZE", "4"}})).ok());
}

}  // namespace
}  // namespace tessera::resilience
