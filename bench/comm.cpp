// What the host transport moves: all_gather and all_to_all between processes over shared memory and TCP beside
// memcpy, and the time of a small message there and back beside a pipe.
//
//   build/plan-only/bench/comm [--json FILE]
//
// GB/s are payload bytes delivered to all ranks together per second (a byte over shared memory is copied
// twice). Each figure is the median of its repeats.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "comm/tcp_store.h"

namespace tessera {
namespace {

constexpr size_t kBlockBytes = 4 << 20;
constexpr int kRepeats = 15, kRounds = 2000;

double median_seconds(int repeats, const std::function<void()>& work) {
  std::vector<double> seconds;
  work();
  for (int i = 0; i < repeats; ++i) {
    Clock::time_point start = Clock::now();
    work();
    seconds.push_back(seconds_since(start));
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[static_cast<size_t>(repeats / 2)];
}

void require(const Status& status) {
  TESSERA_REQUIRE(status.ok(), "{}", status.error().message);
}

struct Case {
  std::string transport;
  int64_t ranks;
};
struct Figures {
  double all_gather_s, all_to_all_s, round_trip_s;
};

double time_round_trip(Group& group) {
  std::byte byte{};
  MutableBytes message(&byte, 1);
  auto rounds = [&] {
    for (int i = 0; i < kRounds && group.rank() < 2; ++i) {
      if (group.rank() == 0) require(group.send(1, message));
      require(group.recv(1 - group.rank(), message));
      if (group.rank() == 1) require(group.send(0, message));
    }
  };
  return median_seconds(3, rounds) / kRounds;
}

Figures measure(Group& group) {
  size_t n = static_cast<size_t>(group.size());
  std::vector<std::byte> mine(kBlockBytes, std::byte{1}), all(n * kBlockBytes, std::byte{2});
  std::vector<Bytes> out(n, mine);
  std::vector<MutableBytes> in;
  for (size_t r = 0; r < n; ++r) in.push_back(std::span(all).subspan(r * kBlockBytes, kBlockBytes));
  Figures figures{};
  figures.all_gather_s = median_seconds(kRepeats, [&] { require(group.all_gather(mine, all)); });
  figures.all_to_all_s = median_seconds(kRepeats, [&] { require(group.all_to_all(out, in)); });
  figures.round_trip_s = time_round_trip(group);
  require(group.barrier());
  return figures;
}

void run_rank(const Case& what, int64_t rank, int port) {
  auto store = connect_store("127.0.0.1", port, "bench", Deadline::after(10));
  TESSERA_REQUIRE(store.ok(), "{}", store.error().message);
  GroupOptions options{.name = "bench", .my_rank = rank, .token = "bench", .timeout_s = 60};
  options.transport = what.transport == "tcp" ? GroupOptions::tcp : GroupOptions::shared_memory;
  for (int64_t r = 0; r < what.ranks; ++r) options.members.push_back(r);
  auto group = make_process_group(**store, options);
  TESSERA_REQUIRE(group.ok(), "{}", group.error().message);
  Figures figures = measure(**group);
  std::string text(reinterpret_cast<const char*>(&figures), sizeof figures);
  if (rank == 0) require((*store)->set("figures", text));
}

// Children are forked before the parent has any thread and learn the store's port through a pipe.
Figures run_case(const Case& what) {
  int channel[2];
  TESSERA_REQUIRE(::pipe(channel) == 0, "no pipe");
  std::vector<pid_t> children;
  for (int64_t rank = 0; rank < what.ranks; ++rank) {
    pid_t child = ::fork();
    if (child == 0) {
      int port = 0;
      TESSERA_REQUIRE(::read(channel[0], &port, sizeof port) == sizeof port, "the parent is gone");
      run_rank(what, rank, port);
      ::_exit(0);
    }
    children.push_back(child);
  }
  auto server = StoreServer::start("127.0.0.1", 0, "bench");
  TESSERA_REQUIRE(server.ok(), "{}", server.error().message);
  int port = (*server)->port();
  for (pid_t child : children) {
    TESSERA_REQUIRE(child > 0 && ::write(channel[1], &port, sizeof port) == sizeof port, "no child");
  }
  for (pid_t child : children) ::waitpid(child, nullptr, 0);
  ::close(channel[0]);
  ::close(channel[1]);
  std::string text = *(*server)->store()->get("figures", Deadline::after(1));
  Figures figures{};
  std::memcpy(&figures, text.data(), sizeof figures);
  return figures;
}

double memcpy_bytes_per_s() {
  std::vector<std::byte> from(kBlockBytes, std::byte{1}), to(kBlockBytes);
  double seconds = median_seconds(kRepeats, [&] {
    for (int i = 0; i < 8; ++i) {
      std::memcpy(to.data(), from.data(), kBlockBytes);
      asm volatile("" : : "r"(to.data()) : "memory");
    }
  });
  return 8.0 * kBlockBytes / seconds;
}

double pipe_round_trip_s() {
  int there[2], back[2];
  TESSERA_REQUIRE(::pipe(there) == 0 && ::pipe(back) == 0, "no pipe");
  char byte = 0;
  pid_t child = ::fork();
  if (child == 0) {
    ::close(there[1]);
    while (::read(there[0], &byte, 1) == 1 && ::write(back[1], &byte, 1) == 1) continue;
    ::_exit(0);
  }
  double seconds = median_seconds(3, [&] {
    for (int i = 0; i < kRounds; ++i) {
      bool passed = ::write(there[1], &byte, 1) == 1 && ::read(back[0], &byte, 1) == 1;
      TESSERA_REQUIRE(passed, "the pipe broke");
    }
  });
  for (int end : {there[0], there[1], back[0], back[1]}) ::close(end);
  ::waitpid(child, nullptr, 0);
  return seconds / kRounds;
}

nlohmann::json row(const std::string& name, const char* unit, const char* peer_name, double ours, double peer,
                   bool higher_is_better, int64_t ranks, int repeats) {
  double ratio = higher_is_better ? ours / peer : peer / ours;
  std::printf("%-28s %10.3f %-4s  %-20s %10.3f  ratio %.2f\n", name.c_str(), ours, unit, peer_name, peer,
              ratio);
  return {{"name", name},
          {"unit", unit},
          {"peer_name", peer_name},
          {"ours", ours},
          {"peer", peer},
          {"ratio", ratio},
          {"higher_is_better", higher_is_better},
          {"threads", ranks},
          {"repeats", repeats}};
}

std::string machine() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) {
      return fmt::format("{} x {}", line.substr(line.find(':') + 2), std::thread::hardware_concurrency());
    }
  }
  return "unknown";
}

nlohmann::json run_all() {
  nlohmann::json rows = nlohmann::json::array();
  double copy = memcpy_bytes_per_s() / 1e9, pipe = pipe_round_trip_s() * 1e6;
  for (const Case& what : {Case{"shm", 2}, Case{"shm", 4}, Case{"tcp", 2}, Case{"tcp", 4}}) {
    Figures figures = run_case(what);
    double delivered = static_cast<double>(what.ranks * (what.ranks - 1)) * kBlockBytes / 1e9;
    std::string suffix = fmt::format("{}-{}", what.transport, what.ranks);
    auto bandwidth = [&](const char* name, double seconds) {
      rows.push_back(row(fmt::format("{}-{}", name, suffix), "GB/s", "memcpy-1-thread", delivered / seconds,
                         copy, true, what.ranks, kRepeats));
    };
    bandwidth("all_gather", figures.all_gather_s);
    bandwidth("all_to_all", figures.all_to_all_s);
    rows.push_back(
        row("round_trip-" + suffix, "us", "pipe", figures.round_trip_s * 1e6, pipe, false, what.ranks, 3));
  }
  return rows;
}

}  // namespace
}  // namespace tessera

int main(int count, char** words) {
  bool json = count == 3 && std::strcmp(words[1], "--json") == 0;
  if (count != 1 && !json) {
    std::fprintf(stderr, "usage: comm [--json FILE]\n");
    return 2;
  }
  double load[3] = {};
  if (::getloadavg(load, 3) < 1) load[0] = -1;
  std::printf("%s, load average %.2f\n", tessera::machine().c_str(), load[0]);
  nlohmann::json report = {
      {"machine", tessera::machine()}, {"load_average", load[0]}, {"rows", tessera::run_all()}};
  if (!json) return 0;
  std::ofstream file(words[2]);
  file << report.dump(2) << "\n";
  return file.good() ? 0 : 1;
}
