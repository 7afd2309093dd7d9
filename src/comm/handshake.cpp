#include "comm/handshake.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/log.h"

namespace tessera::comm {
namespace {

struct HelloHeader {
  std::array<char, 8> magic = {'T', 'E', 'S', 'S', 'E', 'R', 'A', '1'};
  uint32_t token_bytes = 0, name_bytes = 0, rank = 0, ranks = 0;
  uint64_t ring_bytes = 0;
};
static_assert(sizeof(HelloHeader) == 32);

constexpr std::array<char, 8> kWelcome = {'W', 'E', 'L', 'C', 'O', 'M', 'E', '1'};
constexpr size_t kLongestText = 4096;
constexpr size_t kMostVisitors = 1024;
constexpr double kPatience_s = 5;  // for one visitor to say its hello

template <class T>
Bytes bytes_of_value(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

std::string text_at(const std::vector<std::byte>& said, size_t start, size_t length) {
  return {reinterpret_cast<const char*>(said.data()) + start, length};
}

}  // namespace

Status say_hello(const Descriptor& socket, const Hello& hello, Deadline deadline, int memory) {
  HelloHeader header;
  header.token_bytes = static_cast<uint32_t>(hello.token.size());
  header.name_bytes = static_cast<uint32_t>(hello.name.size());
  header.rank = static_cast<uint32_t>(hello.rank);
  header.ranks = static_cast<uint32_t>(hello.ranks);
  header.ring_bytes = static_cast<uint64_t>(hello.ring_bytes);
  std::string text(reinterpret_cast<const char*>(&header), sizeof header);
  text += hello.token + hello.name;
  return send_all(socket, std::as_bytes(std::span(text)), deadline, memory);
}

Result<Descriptor> await_welcome(const Descriptor& socket, Deadline deadline) {
  std::array<char, 8> answer{};
  Descriptor memory;
  TESSERA_RETURN_IF_ERROR(receive_all(socket, std::as_writable_bytes(std::span(answer)), deadline, &memory));
  if (answer != kWelcome) return make_error(ErrorCode::data_loss, "the answer is no welcome");
  return memory;
}

Result<std::map<int64_t, Accepted>> Reception::receive(std::vector<int64_t> ranks, Deadline deadline) {
  awaited_ = std::move(ranks);
  while (!awaited_.empty()) {
    if (deadline.passed()) {
      return make_error(ErrorCode::deadline_exceeded, "rank {} has not connected in time; {} of them missing",
                        awaited_.front(), awaited_.size());
    }
    wait(deadline);
    let_in(unix_, true);
    let_in(tcp_, false);
    std::erase_if(visitors_, [this](Visitor& visitor) {
      Hello hello;
      Verdict verdict = listen_to(visitor, hello);
      if (verdict == Verdict::welcome) admit(visitor, hello.rank);
      return verdict != Verdict::listening;
    });
  }
  return std::move(accepted_);
}

void Reception::wait(Deadline deadline) {
  std::vector<pollfd> entries = {{unix_.number(), POLLIN, 0}, {tcp_.number(), POLLIN, 0}};
  for (const Visitor& visitor : visitors_) entries.push_back({visitor.socket.number(), POLLIN, 0});
  double left_ms = std::clamp(deadline.seconds_left() * 1e3 + 1, 1.0, 200.0);
  ::poll(entries.data(), entries.size(), static_cast<int>(left_ms));
}

void Reception::let_in(const Descriptor& listener, bool over_unix) {
  if (!listener.valid()) return;
  while (visitors_.size() < kMostVisitors) {
    std::optional<Descriptor> socket = accept_one(listener);
    if (!socket) return;
    visitors_.push_back({std::move(*socket), {}, over_unix, {}, Deadline::after(kPatience_s)});
  }
}

// Reads exactly the hello and not a byte of what follows it.
Reception::Verdict Reception::listen_to(Visitor& visitor, Hello& hello) {
  HelloHeader header;
  size_t wanted = sizeof header;
  for (;;) {
    if (visitor.said.size() >= sizeof header) {
      std::memcpy(&header, visitor.said.data(), sizeof header);
      bool sane = header.magic == HelloHeader{}.magic && header.token_bytes <= kLongestText &&
                  header.name_bytes <= kLongestText;
      if (!sane) return Verdict::refused;
      wanted = sizeof header + header.token_bytes + header.name_bytes;
    }
    size_t have = visitor.said.size();
    if (have == wanted && have > sizeof header) break;
    visitor.said.resize(wanted);
    auto count = receive_some(visitor.socket, std::span(visitor.said).subspan(have), &visitor.memory);
    visitor.said.resize(have + (count ? *count : 0));
    if (!count) return Verdict::refused;
    if (*count == 0) return visitor.patience.passed() ? Verdict::refused : Verdict::listening;
  }
  hello = {text_at(visitor.said, sizeof header, header.token_bytes),
           text_at(visitor.said, sizeof header + header.token_bytes, header.name_bytes), header.rank,
           header.ranks, static_cast<int64_t>(header.ring_bytes)};
  const char* wrong = objection(visitor, hello);
  if (wrong == nullptr) return Verdict::welcome;
  log(LogLevel::warn, "group {}, rank {}: refused a connection: {}", me_.name, me_.rank, wrong);
  return Verdict::refused;
}

const char* Reception::objection(const Visitor& visitor, const Hello& hello) const {
  if (!same_token(hello.token, me_.token)) return "its token is not the job's";
  if (hello.name != me_.name) return "it asks for another group";
  if (hello.ranks != me_.ranks) return "its group has another size";
  if (hello.ring_bytes != me_.ring_bytes) return "its ring_bytes differ";
  if (std::find(awaited_.begin(), awaited_.end(), hello.rank) == awaited_.end())
    return "its rank is not awaited";
  if (visitor.over_unix && !visitor.memory.valid()) return "it passes no memory";
  return nullptr;
}

void Reception::admit(Visitor& visitor, int64_t rank) {
  int memory = visitor.over_unix ? memory_ : -1;
  Status told = send_all(visitor.socket, bytes_of_value(kWelcome), visitor.patience, memory);
  if (!told) return;  // it went away again; it may come back
  std::erase(awaited_, rank);
  accepted_[rank] = {std::move(visitor.socket), std::move(visitor.memory)};
}

}  // namespace tessera::comm
