// Groups of real processes under faults. This program is its own worker: `comm_test --worker ...`.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "comm/tcp_store.h"
#include "comm/test_groups.h"

extern char** environ;

namespace tessera {
namespace {

constexpr const char* kJobToken = "job token";
constexpr int64_t kRanks = 3;

struct WorkerArguments {
  int port = 0;
  std::string transport, behaviour;
  int64_t rank = 0;
  double timeout_s = 20;
};

// Gathers again and again until something fails.
Status gather_forever(Group& group, Store& store) {
  std::vector<std::byte> mine(50000), all(mine.size() * static_cast<size_t>(group.size()));
  for (int64_t round = 0;; ++round) {
    if (Status status = group.all_gather(mine, all); !status) return status;
    if (round == 10) store.add("running", 1).ok();
  }
}

// Rank 0 waits for rank 1, which never sends; the others compute.
Status wait_for_silent_peer(Group& group, Store& store) {
  store.add("running", 1).ok();
  std::byte byte{};
  if (group.rank() == 0) return group.recv(1, {&byte, 1});
  std::this_thread::sleep_for(std::chrono::seconds(20));
  return {};
}

// Rank 0 sends and ends; rank 1 reads when the test says so, long after.
Status read_what_a_finished_process_sent(Group& group, Store& store) {
  std::vector<std::byte> data = comm::pattern(0, 1, 5000), got(data.size());
  if (group.rank() == 0) return group.send(1, data);
  if (group.rank() != 1) return {};
  if (auto go = store.get("go", Deadline::after(10)); !go) return go.error();
  TESSERA_RETURN_IF_ERROR(group.recv(0, got));
  if (got != data) return make_error(ErrorCode::data_loss, "other bytes came");
  return {};
}

Status behave(const WorkerArguments& arguments, Store& store) {
  GroupOptions options = comm::test_options("faults", arguments.rank, kRanks);
  options.token = kJobToken;
  options.transport = arguments.transport == "tcp" ? GroupOptions::tcp : GroupOptions::shared_memory;
  TESSERA_ASSIGN_OR_RETURN(auto group, make_process_group(store, options));
  group->set_timeout(arguments.timeout_s);
  if (arguments.behaviour == "gather") return gather_forever(*group, store);
  if (arguments.behaviour == "wait") return wait_for_silent_peer(*group, store);
  return read_what_a_finished_process_sent(*group, store);
}

// Leaves code, time and text of the outcome in the store.
int worker_main(char** words) {
  WorkerArguments arguments{std::atoi(words[0]), words[1], words[2], std::atoll(words[3]), std::atof(words[4])};
  auto store = connect_store("127.0.0.1", arguments.port, kJobToken, Deadline::after(5));
  if (!store) return 3;
  Status status = behave(arguments, **store);
  int64_t now_ns = Clock::now().time_since_epoch().count();  // one clock for all processes of a host
  std::string text =
      status ? "ok" : fmt::format("{}: {}", to_string(status.error().code), status.error().message);
  return (*store)->set(fmt::format("result/{}", arguments.rank), fmt::format("{} {}", now_ns, text)).ok() ? 0
                                                                                                          : 4;
}

struct Outcome {
  double after_s = 0;  // since the fault
  std::string text;
};

class Processes : public testing::TestWithParam<const char*> {
 protected:
  void start(const std::string& behaviour, double timeout_s = 20) {
    auto started = StoreServer::start("127.0.0.1", 0, kJobToken);
    ASSERT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(*started);
    for (int64_t rank = 0; rank < kRanks; ++rank) spawn(behaviour, rank, timeout_s);
  }
  void spawn(const std::string& behaviour, int64_t rank, double timeout_s) {
    std::vector<std::string> words = {
        "comm_test", "--worker",           std::to_string(server_->port()), GetParam(),
        behaviour,   std::to_string(rank), std::to_string(timeout_s)};
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    pid_t pid = 0;
    ASSERT_EQ(::posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, pointers.data(), environ), 0);
    pids_.push_back(pid);
  }
  void wait_until_running() {
    Deadline patience = Deadline::after(10);
    while (*server_->store()->add("running", 0) < kRanks) {
      ASSERT_FALSE(patience.passed());
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  void send_signal(int64_t rank, int number) {
    fault_ = Clock::now();
    ASSERT_EQ(::kill(pids_[static_cast<size_t>(rank)], number), 0);
  }
  Outcome outcome(int64_t rank) {
    auto text = server_->store()->get(fmt::format("result/{}", rank), Deadline::after(10));
    if (!text) return {1e9, text.error().message};
    size_t space = text->find(' ');
    int64_t fault_ns = fault_.time_since_epoch().count();
    return {static_cast<double>(std::stoll(text->substr(0, space)) - fault_ns) * 1e-9, text->substr(space + 1)};
  }
  int exit_status(int64_t rank) {
    int status = -1;
    pid_t& pid = pids_[static_cast<size_t>(rank)];
    ::waitpid(pid, &status, 0);
    pid = 0;
    return status;
  }
  void TearDown() override {
    for (pid_t pid : pids_) {
      if (pid == 0) continue;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

  std::unique_ptr<StoreServer> server_;
  std::vector<pid_t> pids_;
  Clock::time_point fault_;
};

INSTANTIATE_TEST_SUITE_P(Over, Processes, testing::Values("shm", "tcp"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST_P(Processes, KilledPeerSurfacesWithinOneSecond) {
  start("gather");
  wait_until_running();
  send_signal(1, SIGKILL);
  std::string texts;
  for (int64_t rank : {0, 2}) {
    Outcome result = outcome(rank);
    EXPECT_LT(result.after_s, 1.0) << result.text;
    EXPECT_TRUE(result.text.starts_with("unavailable: ")) << result.text;
    EXPECT_NE(result.text.find("all_gather #"), std::string::npos) << result.text;
    texts += result.text;
  }
  EXPECT_NE(texts.find("rank 1 is gone"), std::string::npos) << texts;
}

TEST_P(Processes, PeerKilledWhileItComputesSurfacesWithinOneSecond) {
  start("wait");
  wait_until_running();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  send_signal(2, SIGKILL);  // not even the rank that is waited for
  Outcome result = outcome(0);
  EXPECT_LT(result.after_s, 1.0) << result.text;
  EXPECT_NE(result.text.find("rank 2 is gone"), std::string::npos) << result.text;
}

TEST_P(Processes, StoppedPeerEndsAtTheDeadlineWhichNamesIt) {
  start("gather", 0.6);
  wait_until_running();
  send_signal(1, SIGSTOP);
  std::string texts;
  for (int64_t rank : {0, 2}) {
    Outcome result = outcome(rank);
    EXPECT_GT(result.after_s, 0.5);
    EXPECT_LT(result.after_s, 2.0) << result.text;
    texts += result.text + "\n";
  }
  EXPECT_NE(texts.find("deadline exceeded: "), std::string::npos) << texts;
  EXPECT_NE(texts.find("from rank 1"), std::string::npos) << texts;
  EXPECT_NE(texts.find("not done after 0.6 s"), std::string::npos) << texts;
}

TEST_P(Processes, BytesOfAFinishedProcessStayReadable) {
  start("leave");
  EXPECT_EQ(outcome(0).text, "ok");
  EXPECT_EQ(exit_status(0), 0);
  ASSERT_TRUE(server_->store()->set("go", "").ok());
  EXPECT_EQ(outcome(1).text, "ok");
  EXPECT_EQ(exit_status(1), 0);
}

}  // namespace
}  // namespace tessera

int main(int count, char** words) {
  bool worker = count == 7 && std::strcmp(words[1], "--worker") == 0;
  if (worker) return tessera::worker_main(words + 2);
  testing::InitGoogleTest(&count, words);
  return RUN_ALL_TESTS();
}
