#include "comm/process_group.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "comm/channel_group.h"
#include "comm/handshake.h"
#include "comm/host.h"
#include "comm/ring_channel.h"
#include "comm/tcp_channel.h"

namespace tessera::comm {
namespace {

// Where one rank can be reached; in the store as five lines under comm/NAME/RANK.
struct Card {
  std::string identity, host, unix_name, tcp_address;
  int tcp_port = 0;

  std::string text() const {
    return fmt::format("{}\n{}\n{}\n{}\n{}\n", identity, host, unix_name, tcp_address, tcp_port);
  }
  static Result<Card> parse(const std::string& text);
};

Result<Card> Card::parse(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t start = 0, end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    lines.push_back(text.substr(start, end - start));
  }
  if (lines.size() != 5) return make_error(ErrorCode::data_loss, "card has {} lines, expected 5", lines.size());
  Card card{lines[0], lines[1], lines[2], lines[3], 0};
  std::from_chars(lines[4].data(), lines[4].data() + lines[4].size(), card.tcp_port);
  return card;
}

// State of joining, step by step.
class Joining {
 public:
  Joining(Store& store, const GroupOptions& options, std::string identity)
      : store_(store),
        options_(options),
        identity_(std::move(identity)),
        deadline_(Deadline::after(options.timeout_s)) {}

  Result<std::unique_ptr<Group>> join();

 private:
  Status check_options();
  Status open_listeners();
  Status publish_and_read_cards();
  Status connect_to_lower();
  Status receive_higher();
  Status await_welcomes();
  Result<std::unique_ptr<Channel>> make_channel(int64_t peer);
  Result<std::unique_ptr<Group>> make_group();

  bool shares_memory(int64_t peer) const;
  std::string key(int64_t rank) const { return fmt::format("comm/{}/{}", options_.name, rank); }
  std::string label(int64_t rank) const;
  Hello hello() const { return {options_.token, options_.name, me_, ranks_, options_.ring_bytes}; }

  Store& store_;
  const GroupOptions& options_;
  std::string identity_;
  Deadline deadline_;
  int64_t me_ = 0, ranks_ = 0;
  Descriptor unix_listener_, tcp_listener_;
  std::shared_ptr<Segment> memory_;
  Card mine_;
  std::vector<Card> cards_;
  std::map<int64_t, Accepted> peers_;
};

Status Joining::check_options() {
  ranks_ = static_cast<int64_t>(options_.members.size());
  auto mine = std::find(options_.members.begin(), options_.members.end(), options_.my_rank);
  if (mine == options_.members.end()) {
    return invalid("job rank {} is not among the {} members", options_.my_rank, ranks_);
  }
  me_ = mine - options_.members.begin();
  if (options_.name.empty()) return invalid("the group needs a name that is unique in the job");
  if (options_.name.size() > 4096 || options_.token.size() > 4096)
    return invalid("name or token above 4096 bytes");
  if (options_.ring_bytes < 1) return invalid("ring_bytes = {} must be positive", options_.ring_bytes);
  if (!(options_.timeout_s > 0)) return invalid("timeout_s = {} must be positive", options_.timeout_s);
  return {};
}

std::string Joining::label(int64_t rank) const {
  int64_t job_rank = options_.members[static_cast<size_t>(rank)];
  std::string text =
      job_rank == rank ? fmt::format("rank {}", rank) : fmt::format("rank {} (job rank {})", rank, job_rank);
  const std::string& host = cards_[static_cast<size_t>(rank)].host;
  return host == mine_.host ? text : fmt::format("{} on {}", text, host);
}

bool Joining::shares_memory(int64_t peer) const {
  return options_.transport != GroupOptions::tcp && cards_[static_cast<size_t>(peer)].identity == identity_;
}

Status Joining::open_listeners() {
  mine_ = {identity_, host_name(), "", options_.bind_address, 0};
  if (options_.transport != GroupOptions::tcp) {
    mine_.unix_name = random_name();
    TESSERA_ASSIGN_OR_RETURN(unix_listener_, listen_unix(mine_.unix_name));
    TESSERA_ASSIGN_OR_RETURN(memory_, Segment::make_shared(ranks_, options_.ring_bytes));
  }
  if (options_.transport == GroupOptions::shared_memory) return {};
  TESSERA_ASSIGN_OR_RETURN(tcp_listener_, listen_tcp(options_.bind_address, 0));
  TESSERA_ASSIGN_OR_RETURN(mine_.tcp_port, local_port(tcp_listener_));
  bool everywhere = options_.bind_address == "0.0.0.0" || options_.bind_address == "::";
  if (everywhere) mine_.tcp_address = mine_.host;
  return {};
}

Status Joining::publish_and_read_cards() {
  TESSERA_RETURN_IF_ERROR(store_.set(key(me_), mine_.text()));
  for (int64_t rank = 0; rank < ranks_; ++rank) {
    auto text = store_.get(key(rank), deadline_);
    if (!text) return text.error().within(fmt::format("rank {} has not announced itself", rank));
    TESSERA_ASSIGN_OR_RETURN(Card card, Card::parse(*text));
    cards_.push_back(std::move(card));
    bool apart = options_.transport == GroupOptions::shared_memory && cards_.back().identity != identity_;
    if (apart) {
      return invalid("transport shared_memory, but rank {} is on another host ({}); use automatic or tcp", rank,
                     cards_.back().host);
    }
  }
  return {};
}

Status Joining::connect_to_lower() {
  for (int64_t peer = 0; peer < me_; ++peer) {
    const Card& card = cards_[static_cast<size_t>(peer)];
    bool local = shares_memory(peer);
    auto socket = local ? connect_unix(card.unix_name, deadline_)
                        : connect_tcp(card.tcp_address, card.tcp_port, deadline_);
    if (!socket) return socket.error().within(label(peer));
    Status told = say_hello(*socket, hello(), deadline_, local ? memory_->descriptor() : -1);
    if (!told) return told.error().within(label(peer));
    peers_[peer].socket = std::move(*socket);
  }
  return {};
}

Status Joining::receive_higher() {
  std::vector<int64_t> awaited;
  for (int64_t peer = me_ + 1; peer < ranks_; ++peer) awaited.push_back(peer);
  Reception reception(hello(), unix_listener_, tcp_listener_, memory_ ? memory_->descriptor() : -1);
  TESSERA_ASSIGN_OR_RETURN(auto accepted, reception.receive(std::move(awaited), deadline_));
  peers_.merge(accepted);
  return {};
}

Status Joining::await_welcomes() {
  for (int64_t peer = 0; peer < me_; ++peer) {
    Accepted& lower = peers_[peer];
    auto memory = await_welcome(lower.socket, deadline_);
    if (!memory) {
      return make_error(
          memory.error().code,
          "{} did not welcome us: {}; do both have the same job token, group size and ring_bytes?", label(peer),
          memory.error().message);
    }
    lower.memory = std::move(*memory);
  }
  return {};
}

Result<std::unique_ptr<Channel>> Joining::make_channel(int64_t peer) {
  Accepted& link = peers_[peer];
  if (!shares_memory(peer)) {
    return std::unique_ptr<Channel>(std::make_unique<TcpChannel>(label(peer), std::move(link.socket)));
  }
  if (!link.memory.valid()) return make_error(ErrorCode::data_loss, "{} passed no memory", label(peer));
  TESSERA_ASSIGN_OR_RETURN(auto theirs, Segment::map(link.memory.release(), ranks_, options_.ring_bytes));
  return std::unique_ptr<Channel>(
      std::make_unique<RingChannel>(label(peer), memory_, me_, std::move(theirs), peer, link.socket.release()));
}

Result<std::unique_ptr<Group>> Joining::make_group() {
  Links links;
  links.rank = me_;
  for (int64_t peer = 0; peer < ranks_; ++peer) {
    links.labels.push_back(label(peer));
    auto& channel = links.channels.emplace_back();
    if (peer == me_) continue;
    TESSERA_ASSIGN_OR_RETURN(channel, make_channel(peer));
    links.polls = links.polls || !shares_memory(peer);
  }
  if (memory_) {
    memory_->close_descriptor();
    links.bell = std::shared_ptr<BellWords>(memory_, &memory_->bell());
  } else {
    links.bell = std::make_shared<BellWords>();
  }
  if (links.polls) {
    links.nudge = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (links.nudge < 0) return make_error(ErrorCode::resource_exhausted, "no descriptor left for an eventfd");
  }
  return make_channel_group({options_.name, mine_.host, options_.timeout_s}, std::move(links));
}

Result<std::unique_ptr<Group>> Joining::join() {
  using Step = Status (Joining::*)();
  constexpr std::array<Step, 6> kSteps = {&Joining::check_options,          &Joining::open_listeners,
                                          &Joining::publish_and_read_cards, &Joining::connect_to_lower,
                                          &Joining::receive_higher,         &Joining::await_welcomes};
  for (Step step : kSteps) TESSERA_RETURN_IF_ERROR((this->*step)());
  return make_group();
}

}  // namespace

Result<std::unique_ptr<Group>> join_group(Store& store, const GroupOptions& options, const std::string& host) {
  auto group = Joining(store, options, host).join();
  if (group) return group;
  return group.error().within(
      fmt::format("job rank {} on {} cannot join group {}", options.my_rank, host_name(), options.name));
}

}  // namespace tessera::comm

namespace tessera {

Result<std::unique_ptr<Group>> make_process_group(Store& store, GroupOptions options) {
  return comm::join_group(store, options, comm::host_identity());
}

}  // namespace tessera
