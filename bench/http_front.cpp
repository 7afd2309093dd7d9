// The HTTP front alone: how many streams one core keeps open, how many events a second go out to them, and
// whether readers that take nothing delay the others.
//
//   http_front [--streams 10000] [--events 50000] [--slow 20] [--seconds 10] [--json FILE]
//
// The server runs on one core, the clients (one thread, epoll) on another. Every tick each stream of a group
// gets one event with its time; clients measure the delay. Slow readers open a stream, too, and never read.
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "http/http.h"

namespace tessera {
namespace {

constexpr size_t kMaxUnsent = 64 << 10;  // of one stream; more is dropped and counted

void stay_on_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  (void)sched_setaffinity(0, sizeof(set), &set);
}

int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

double cpu_seconds_of_thread() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

int64_t resident_bytes() {
  int64_t pages = 0, ignored = 0;
  std::ifstream("/proc/self/statm") >> ignored >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// One stream as the server holds it: one write under way, what comes meanwhile joined in a bounded buffer.
struct Stream {
  std::shared_ptr<HttpExchange> exchange;
  std::string unsent;
  bool writing = false, gone = false;
};

class Front {
 public:
  explicit Front(double events_per_s) : events_per_s_(events_per_s) {}

  void open(std::shared_ptr<HttpExchange> exchange) {
    auto stream = std::make_shared<Stream>();
    stream->exchange = exchange;
    exchange->on_written = [this, weak = std::weak_ptr(stream)] {
      if (auto own = weak.lock()) {
        own->writing = false;
        flush(*own);
      }
    };
    exchange->on_disconnect = [weak = std::weak_ptr(stream)] {
      if (auto own = weak.lock()) own->gone = true;
    };
    exchange->begin_stream({.content_type = "text/event-stream"});
    streams_.push_back(std::move(stream));
  }

  // As many events as are due, to one stream after the other.
  void tick() {
    if (streams_.empty() || !running) return;
    auto due = static_cast<int64_t>(seconds_since(began) * events_per_s_) - sent;
    for (int64_t i = 0; i < due; ++i) {
      Stream& stream = *streams_[next_++ % streams_.size()];
      ++sent;
      if (stream.gone) continue;
      if (stream.unsent.size() > kMaxUnsent) {
        ++dropped;
        continue;
      }
      stream.unsent += fmt::format(
          "data: {{\"id\":\"cmpl-0123456789\",\"t\":{},\"choices\":[{{\"index\":0,\"text\":\" word\"}}]}}\n\n",
          now_us());
      flush(stream);
    }
  }
  size_t open_streams() const { return streams_.size(); }

  std::atomic<bool> running = false;
  Clock::time_point began;
  int64_t sent = 0, dropped = 0;

 private:
  void flush(Stream& stream) {
    if (stream.writing || stream.unsent.empty()) return;
    stream.writing = true;
    stream.exchange->write(std::exchange(stream.unsent, {}));
  }

  double events_per_s_;
  std::vector<std::shared_ptr<Stream>> streams_;
  size_t next_ = 0;
};

int connect_to(uint16_t port) {
  int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (socket < 0 || ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  const char request[] = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
  (void)!::write(socket, request, sizeof(request) - 1);
  return socket;
}

// Reads all streams; delays in microseconds of the events that came while `measuring`.
class Clients {
 public:
  explicit Clients(const std::vector<int>& sockets) : epoll_(epoll_create1(0)) {
    for (int socket : sockets) {
      fcntl(socket, F_SETFL, O_NONBLOCK);
      epoll_event event{.events = EPOLLIN, .data = {.fd = socket}};
      epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
    }
  }
  ~Clients() { close(epoll_); }

  void run() {
    std::vector<epoll_event> events(1024);
    std::vector<char> bytes(64 << 10);
    while (!stop) {
      int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 50);
      for (int i = 0; i < count; ++i) {
        ssize_t got = ::read(events[static_cast<size_t>(i)].data.fd, bytes.data(), bytes.size());
        if (got > 0) look({bytes.data(), static_cast<size_t>(got)});
      }
    }
  }

  std::atomic<bool> stop = false, measuring = false;
  std::vector<int64_t> delays_us;

 private:
  void look(std::string_view text) {
    if (!measuring) return;
    for (size_t at = text.find("\"t\":"); at != text.npos; at = text.find("\"t\":", at + 4))
      delays_us.push_back(now_us() - std::atoll(text.data() + at + 4));
  }
  int epoll_;
};

struct Outcome {
  double events_per_s = 0, p50_ms = 0, p99_ms = 0, server_cpu = 0, bytes_per_stream = 0;
  size_t streams = 0;
  int64_t dropped = 0;
};

Outcome measure(int64_t num_streams, double events_per_s, int64_t num_slow, double seconds) {
  HttpServerOptions options;
  auto server = HttpServer::listen(options).value();
  Front front(events_per_s);
  int64_t before = resident_bytes();
  std::atomic<double> cpu = 0;
  std::atomic<size_t> open = 0;
  std::thread serving([&] {
    stay_on_core(0);
    server->run([&](auto exchange) {
      front.open(std::move(exchange));
      open = front.open_streams();
    });
  });
  std::vector<int> readers, slow;
  for (int64_t i = 0; i < num_streams; ++i) readers.push_back(connect_to(server->port()));
  for (int64_t i = 0; i < num_slow; ++i) slow.push_back(connect_to(server->port()));
  Deadline opened = Deadline::after(30);
  while (open < static_cast<size_t>(num_streams + num_slow)) {
    if (opened.passed()) {
      fmt::print(
          stderr,
          "only {} streams could be opened; both ends are here, so `ulimit -n` must allow twice as many\n",
          open.load());
      std::exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  auto bytes = static_cast<double>(resident_bytes() - before);
  Clients clients(readers);
  std::thread reading([&] {
    stay_on_core(1);
    clients.run();
  });
  auto on_server = [&](auto work) {
    std::atomic<bool> done = false;
    server->post([&] {
      work();
      done = true;
    });
    while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  on_server([&] {
    front.began = Clock::now();
    front.running = true;
    cpu = -cpu_seconds_of_thread();
  });
  Deadline warm = Deadline::after(1), end = Deadline::after(1 + seconds);
  while (!end.passed()) {
    clients.measuring = warm.passed();
    server->post([&] { front.tick(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  clients.measuring = false;
  on_server([&] {
    front.running = false;
    cpu = cpu + cpu_seconds_of_thread();
  });
  clients.stop = true;
  reading.join();
  Outcome out{.server_cpu = cpu / (1 + seconds),
              .bytes_per_stream = bytes / static_cast<double>(num_streams + num_slow),
              .streams = open,
              .dropped = front.dropped};
  auto& delays = clients.delays_us;
  std::sort(delays.begin(), delays.end());
  out.events_per_s = static_cast<double>(delays.size()) / seconds;
  if (!delays.empty()) {
    out.p50_ms = static_cast<double>(delays[delays.size() / 2]) / 1e3;
    out.p99_ms = static_cast<double>(delays[delays.size() * 99 / 100]) / 1e3;
  }
  for (int socket : readers) close(socket);
  for (int socket : slow) close(socket);
  server->post([&] { server->drain(); });
  serving.join();
  return out;
}

void print(const char* name, const Outcome& outcome) {
  fmt::print(
      "{:24} {} streams, {:.0f} events/s, delay p50 {:.1f} ms p99 {:.1f} ms, {:.0f} % of the server's core, "
      "{:.1f} KB a stream, {} dropped\n",
      name, outcome.streams, outcome.events_per_s, outcome.p50_ms, outcome.p99_ms, 100 * outcome.server_cpu,
      outcome.bytes_per_stream / 1e3, outcome.dropped);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  int64_t streams = 10000, slow = 20;
  double events = 50000, seconds = 10;
  std::string json;
  CLI::App app("The HTTP front alone");
  app.add_option("--streams", streams, "Streams that are open at once")->capture_default_str();
  app.add_option("--events", events, "Events a second over all of them")->capture_default_str();
  app.add_option("--slow", slow, "Further streams whose readers take nothing")->capture_default_str();
  app.add_option("--seconds", seconds, "Of each measurement")->capture_default_str();
  app.add_option("--json", json, "File for the figures");
  CLI11_PARSE(app, argc, argv);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  auto plain = tessera::measure(streams, events, 0, seconds);
  tessera::print("all read", plain);
  auto beside = tessera::measure(streams, events, slow, seconds);
  tessera::print("beside slow readers", beside);
  if (json.empty()) return 0;
  double load = 0;
  (void)getloadavg(&load, 1);
  auto row = [](const char* name, const char* unit, double target, double ours, bool higher) {
    return nlohmann::json{{"name", name},
                          {"unit", unit},
                          {"peer_name", "target"},
                          {"ours", ours},
                          {"peer", target},
                          {"ratio", higher ? ours / target : target / ours},
                          {"higher_is_better", higher},
                          {"threads", 1},
                          {"repeats", 1}};
  };
  nlohmann::json out = {
      {"load_average", load},
      {"rows",
       {row("open streams on one core", "streams", 10000, static_cast<double>(plain.streams), true),
        row("events a second", "1/s", 50000, plain.events_per_s, true),
        row("p99 delay beside slow readers, against none", "ms", plain.p99_ms, beside.p99_ms, false)}}};
  std::ofstream(json) << out.dump(2) << "\n";
  return 0;
}
