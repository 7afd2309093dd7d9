#include "comm/exchanger.h"

#include <unistd.h>

#include <algorithm>

namespace tessera::comm {
namespace {

constexpr double kLookAfterPeers_s = 0.1;  // a dead process is noticed this soon
constexpr auto kSpin = std::chrono::microseconds(10);

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Exchanger::Exchanger(Links links, FlightRecorder& recorder)
    : links_(std::move(links)), recorder_(recorder), out_(links_.labels.size()), in_(links_.labels.size()) {}

Exchanger::~Exchanger() {
  if (links_.nudge >= 0) ::close(links_.nudge);
}

void Exchanger::send(int64_t peer, const Header& header, Bytes body) {
  Outgoing& message = out_[static_cast<size_t>(peer)].emplace_back();
  message.header = header;
  message.header.bytes = body.size();
  message.body = body;
  ++borrowed_;
  ++queued_;
}

void Exchanger::receive(int64_t peer, const Header& expected, MutableBytes into) {
  Incoming& incoming = in_[static_cast<size_t>(peer)];
  TESSERA_REQUIRE(!incoming.waiting, "two receives from rank {} in one round", peer);
  incoming = {expected, {}, into, 0, true};
  incoming.expected.bytes = into.size();
  ++receives_;
}

Status Exchanger::run(Deadline deadline) {
  Status status = move_until([this] { return receives_ == 0 && borrowed_ == 0; }, deadline);
  if (!status) drop_borrowed();
  left_over_.store(queued_ > 0, std::memory_order_release);
  return status;
}

Status Exchanger::flush(Deadline deadline, const std::atomic<bool>& stop) {
  Status status = move_until([&] { return queued_ == 0 || stop.load(std::memory_order_acquire); }, deadline);
  left_over_.store(queued_ > 0 && status.ok(), std::memory_order_release);
  return status;
}

Status Exchanger::keep_copies() {
  bool moved = true;
  while (moved && borrowed_ > 0) {
    moved = false;
    TESSERA_RETURN_IF_ERROR(move_all(moved));
  }
  for (std::deque<Outgoing>& queue : out_) {
    for (Outgoing& message : queue) {
      if (!message.borrowed) continue;
      size_t sent = message.done > sizeof(Header) ? message.done - sizeof(Header) : 0;
      Bytes rest = message.body.subspan(sent);
      message.copy.assign(rest.begin(), rest.end());
      message.body = message.copy;
      message.done -= sent;
      message.borrowed = false;
      --borrowed_;
    }
  }
  left_over_.store(queued_ > 0, std::memory_order_release);
  return {};
}

// After a failure nothing may touch the caller's buffers again.
void Exchanger::drop_borrowed() {
  for (std::deque<Outgoing>& queue : out_) queue.clear();
  for (Incoming& incoming : in_) incoming.waiting = false;
  receives_ = borrowed_ = queued_ = 0;
}

template <class Done>
Status Exchanger::move_until(Done done, Deadline deadline) {
  Clock::time_point idle_since{}, look = Clock::now() + std::chrono::milliseconds(100);
  for (bool idle = false;;) {
    if (failed_.load(std::memory_order_acquire)) return *failure();
    uint32_t seen = links_.bell->count.load(std::memory_order_seq_cst);
    bool moved = false;
    TESSERA_RETURN_IF_ERROR(move_all(moved));
    if (done()) return {};
    Clock::time_point now = Clock::now();
    if (now >= deadline.at) return too_late();
    if (!idle || moved) idle_since = now;
    idle = !moved;
    if (moved) continue;
    bool thorough = now >= look;
    TESSERA_RETURN_IF_ERROR(check_peers(thorough));
    if (thorough) look = now + std::chrono::milliseconds(100);
    if (now - idle_since < kSpin) {
      relax();
      continue;
    }
    sleep(seen, std::min(kLookAfterPeers_s, std::chrono::duration<double>(deadline.at - now).count()));
  }
}

Status Exchanger::move_all(bool& moved) {
  for (size_t p = 0; p < out_.size(); ++p) {
    if (!out_[p].empty()) TESSERA_RETURN_IF_ERROR(move_out(p, moved));
    if (in_[p].waiting) TESSERA_RETURN_IF_ERROR(move_in(p, moved));
  }
  return {};
}

Status Exchanger::move_out(size_t peer, bool& moved) {
  std::deque<Outgoing>& queue = out_[peer];
  while (!queue.empty()) {
    Outgoing& message = queue.front();
    Bytes header = std::as_bytes(std::span(&message.header, 1));
    size_t of_header = std::min(message.done, sizeof(Header));
    Bytes body = message.body.subspan(message.done - of_header);
    TESSERA_ASSIGN_OR_RETURN(size_t count, links_.channels[peer]->write_some(header.subspan(of_header), body));
    if (count == 0) return {};
    moved = true;
    message.done += count;
    if (message.done < sizeof(Header) + message.body.size()) return {};  // let the other channels have a turn
    if (message.borrowed) --borrowed_;
    --queued_;
    queue.pop_front();
  }
  return {};
}

Status Exchanger::move_in(size_t peer, bool& moved) {
  Incoming& incoming = in_[peer];
  Channel& channel = *links_.channels[peer];
  if (incoming.done < sizeof(Header)) {
    MutableBytes header = std::as_writable_bytes(std::span(&incoming.came, 1));
    TESSERA_ASSIGN_OR_RETURN(size_t count, channel.read_some(header.subspan(incoming.done)));
    incoming.done += count;
    if (count > 0) moved = true;
    if (incoming.done < sizeof(Header)) return {};
    if (!matches(incoming.came, incoming.expected)) {
      return mismatch(links_.labels[peer], incoming.came, label(rank()), incoming.expected);
    }
  }
  MutableBytes rest = incoming.into.subspan(incoming.done - sizeof(Header));
  if (!rest.empty()) {
    TESSERA_ASSIGN_OR_RETURN(size_t count, channel.read_some(rest));
    incoming.done += count;
    if (count > 0) moved = true;
    if (count < rest.size()) return {};
  }
  incoming.waiting = false;
  --receives_;
  return {};
}

Status Exchanger::check_peers(bool thorough) {
  for (const std::unique_ptr<Channel>& channel : links_.channels) {
    if (channel) TESSERA_RETURN_IF_ERROR(channel->check(thorough));
  }
  return {};
}

void Exchanger::sleep(uint32_t seen, double seconds) {
  recorder_.waiting_for(awaited_peer());
  if (!links_.polls) return sleep_on_futex(*links_.bell, seen, seconds);
  std::vector<pollfd> descriptors = interests();
  sleep_in_poll(*links_.bell, seen, seconds, descriptors);
  for (size_t p = 0; p < links_.channels.size(); ++p) {
    if (links_.channels[p]) links_.channels[p]->polled(descriptors[p].revents);
  }
  uint64_t nudges = 0;
  if (descriptors.back().revents != 0) {
    [[maybe_unused]] ssize_t count = ::read(links_.nudge, &nudges, sizeof nudges);
  }
}

std::vector<pollfd> Exchanger::interests() const {
  std::vector<pollfd> descriptors;
  for (size_t p = 0; p < links_.channels.size(); ++p) {
    Channel* channel = links_.channels[p].get();
    descriptors.push_back(channel ? channel->interest(in_[p].waiting, !out_[p].empty()) : pollfd{-1, 0, 0});
  }
  descriptors.push_back({links_.nudge, POLLIN, 0});
  return descriptors;
}

// A peer that we want bytes from, else one that we want room from.
int64_t Exchanger::awaited_peer() const {
  for (size_t p = 0; p < in_.size(); ++p) {
    if (in_[p].waiting) return static_cast<int64_t>(p);
  }
  for (size_t p = 0; p < out_.size(); ++p) {
    if (!out_[p].empty()) return static_cast<int64_t>(p);
  }
  return -1;
}

Error Exchanger::too_late() const {
  std::string peers;
  for (size_t p = 0; p < in_.size(); ++p) {
    std::string more = peers.empty() ? "" : ", ";
    if (in_[p].waiting) {
      peers += fmt::format("{}got {} of {} bytes from {}", more,
                           std::max(in_[p].done, sizeof(Header)) - sizeof(Header), in_[p].into.size(),
                           links_.labels[p]);
    } else if (!out_[p].empty()) {
      peers += fmt::format("{}{} takes no bytes", more, links_.labels[p]);
    }
  }
  return make_error(ErrorCode::deadline_exceeded, "{}", peers);
}

void Exchanger::fail(Error error) {
  {
    std::lock_guard lock(failure_mutex_);
    if (failure_ || left_) return;
    for (const std::unique_ptr<Channel>& channel : links_.channels) {
      if (channel) channel->leave(true, error.message);
    }
    failure_ = std::move(error);
    failed_.store(true, std::memory_order_release);
  }
  wake();
}

std::optional<Error> Exchanger::failure() const {
  std::lock_guard lock(failure_mutex_);
  return failure_;
}

void Exchanger::leave_in_order() {
  std::lock_guard lock(failure_mutex_);
  if (failure_ || left_) return;
  left_ = true;
  for (const std::unique_ptr<Channel>& channel : links_.channels) {
    if (channel) channel->leave(false, "");
  }
}

}  // namespace tessera::comm
