#include "resilience/process.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "core/clock.h"

namespace tessera::resilience {
namespace {

bool readable(int descriptor, int milliseconds) {
  pollfd entry{.fd = descriptor, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, milliseconds) == 1;
}

Process shell(const std::string& script, std::map<std::string, std::string> environment = {},
              std::string secret = "") {
  return Process::start({{"sh", "-c", script}, std::move(environment), std::move(secret)}).value();
}

std::vector<std::string> all_lines(LineReader& reader) {
  std::vector<std::string> lines;
  Deadline deadline = Deadline::after(5);
  while (!reader.closed() && !deadline.passed()) {
    readable(reader.descriptor(), 100);
    for (auto& line : reader.read()) lines.push_back(line);
  }
  return lines;
}

TEST(Process, KilledChildIsNoticedWithinTenthOfASecond) {
  Process child = shell("sleep 60");
  EXPECT_FALSE(child.ended());
  auto start = Clock::now();
  child.signal(SIGKILL);
  ASSERT_TRUE(readable(child.pidfd(), 2000));
  EXPECT_LT(seconds_since(start), 0.1);
  EXPECT_EQ(child.ended()->signal, SIGKILL);
  EXPECT_EQ(child.ended()->describe(), "killed by signal 9 (Killed)");
}

TEST(Process, ExitStatusIsKept) {
  Process child = shell("exit 3");
  ASSERT_TRUE(readable(child.pidfd(), 5000));
  EXPECT_EQ(child.ended()->code, 3);
  EXPECT_FALSE(child.ended()->success());
}

TEST(Process, LinesComeWholeAndSeparately) {
  Process child = shell("printf 'one\\ntw'; printf 'o\\nend' ; echo wrong >&2");
  LineReader output(child.output()), errors(child.errors());
  EXPECT_EQ(all_lines(output), (std::vector<std::string>{"one", "two", "end"}));
  EXPECT_EQ(all_lines(errors), (std::vector<std::string>{"wrong"}));
}

TEST(Process, EnvironmentIsAddedAndTheSecretStaysOutOfIt) {
  Process child = shell("echo $EXTRA; cat /dev/fd/$TESSERA_TOKEN_FD; echo; env | grep -c swordfish",
                        {{"EXTRA", "yes"}}, "swordfish");
  LineReader output(child.output());
  EXPECT_EQ(all_lines(output), (std::vector<std::string>{"yes", "swordfish", "0"}));
}

TEST(Process, SignalsReachGrandchildren) {
  Process child = shell("sleep 60 & echo $!; wait");
  LineReader output(child.output());
  std::vector<std::string> lines;
  while (lines.empty()) lines = output.read();
  child.signal(SIGKILL);
  ASSERT_TRUE(readable(child.pidfd(), 2000));
  for (int i = 0; i < 100 && !output.closed(); ++i) {  // the pipe closes when the last holder is gone
    readable(output.descriptor(), 20);
    output.read();
  }
  EXPECT_TRUE(output.closed());
}

TEST(Process, ChildDiesWithItsParent) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  pid_t parent = ::fork();
  if (parent == 0) {
    auto child = Process::start({{"sleep", "60"}, {}, ""});
    pid_t pid = child->pid();
    if (::write(ends[1], &pid, sizeof pid) < 0) ::_exit(1);
    ::raise(SIGKILL);
  }
  pid_t grandchild = 0;
  ASSERT_EQ(::read(ends[0], &grandchild, sizeof grandchild), static_cast<ssize_t>(sizeof grandchild));
  ::waitpid(parent, nullptr, 0);
  auto gone = [&] {  // a zombie that nobody reaps yet is dead too
    std::ifstream stat("/proc/" + std::to_string(grandchild) + "/stat");
    std::string line;
    return !std::getline(stat, line) || line.find(") Z ") != std::string::npos;
  };
  for (int i = 0; i < 100 && !gone(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(gone());
}

TEST(Process, MissingProgramSaysSo) {
  Process child = Process::start({{"/no/such/program"}, {}, ""}).value();
  LineReader errors(child.errors());
  EXPECT_EQ(all_lines(errors).at(0), "error: cannot run the worker's program: no such file, or not executable");
  ASSERT_TRUE(readable(child.pidfd(), 2000));
  EXPECT_EQ(child.ended()->code, 127);
}

}  // namespace
}  // namespace tessera::resilience
