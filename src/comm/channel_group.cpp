#include "comm/channel_group.h"

namespace tessera::comm {
namespace {

// Nanoseconds and counts that several threads add to.
struct Books {
  std::atomic<uint64_t> bytes_sent{0}, operations{0}, exposed_ns{0}, busy_ns{0};
};

class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<uint64_t>& total) : total_(total), start_(Clock::now()) {}
  ~Stopwatch() { total_ += static_cast<uint64_t>((Clock::now() - start_).count()); }

 private:
  std::atomic<uint64_t>& total_;
  Clock::time_point start_;
};
static_assert(std::is_same_v<Clock::duration, std::chrono::nanoseconds>);

// Waits once for a job, and at the latest before the buffers may go.
class PendingJob : public PendingOperation {
 public:
  PendingJob(std::shared_ptr<OperationQueue::Job> job, std::shared_ptr<Books> books)
      : job_(std::move(job)), books_(std::move(books)) {}
  ~PendingJob() override { job_->wait().ok(); }
  Status wait() override {
    Stopwatch exposed(books_->exposed_ns);
    return job_->wait();
  }
  bool done() const override { return job_->done(); }

 private:
  std::shared_ptr<OperationQueue::Job> job_;
  std::shared_ptr<Books> books_;
};

class FinishedOperation : public PendingOperation {
 public:
  explicit FinishedOperation(Status status) : status_(std::move(status)) {}
  Status wait() override { return status_; }
  bool done() const override { return true; }

 private:
  Status status_;
};

class ChannelGroup : public Group {
 public:
  ChannelGroup(GroupIdentity identity, Links links)
      : identity_(std::move(identity)), exchanger_(std::move(links), recorder_), queue_(left_over_sends()) {
    sent_.resize(static_cast<size_t>(size()));
    received_.resize(static_cast<size_t>(size()));
    set_timeout(identity_.timeout_s);
  }
  ~ChannelGroup() override;

  int64_t rank() const override { return exchanger_.rank(); }
  int64_t size() const override { return exchanger_.size(); }
  void set_timeout(double seconds) override { timeout_s_ = seconds; }

  Status send(int64_t to, Bytes data) override;
  Status recv(int64_t from, MutableBytes data) override;
  Status barrier() override;
  Status broadcast(int64_t root, MutableBytes data) override;
  Status all_gather(Bytes mine, MutableBytes all) override;
  Status all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) override;
  Status all_reduce_sum(std::span<int64_t> values) override;
  Status all_reduce_max(std::span<float> values) override;
  Pending start_all_gather(Bytes mine, MutableBytes all) override;
  Pending start_all_to_all(std::vector<Bytes> out, std::vector<MutableBytes> in) override;

  void abort(Error error) override { exchanger_.fail(std::move(error)); }
  TrafficCounters counters() const override;
  std::string current_operation() const override { return recorder_.current(); }

 private:
  using Talk = std::function<Status(Conversation&)>;
  using Numbers = std::vector<uint64_t>;

  Operation collective(Kind kind, uint64_t bytes) { return {kind, collectives_++, bytes}; }
  Status run(const Operation& operation, const Talk& talk);
  Pending start(const Operation& operation, Talk talk);
  Status perform(const Operation& operation, const Talk& talk);
  Error explain(const Operation& operation, const Error& error) const;
  Status refuse(const Operation& operation, Error error);
  Status check_peer(int64_t peer) const;
  Status check_all_gather(Bytes mine, MutableBytes all) const;
  Status check_all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) const;
  OperationQueue::IdleWork left_over_sends();

  GroupIdentity identity_;
  FlightRecorder recorder_;
  Exchanger exchanger_;
  std::shared_ptr<Books> books_ = std::make_shared<Books>();
  std::atomic<double> timeout_s_{300};
  uint64_t collectives_ = 0;
  Numbers sent_, received_;  // messages by peer
  OperationQueue queue_;     // last: its thread uses the rest
};

uint64_t total(std::span<const Bytes> blocks) {
  uint64_t bytes = 0;
  for (Bytes block : blocks) bytes += block.size();
  return bytes;
}

OperationQueue::IdleWork ChannelGroup::left_over_sends() {
  return {[this] { return exchanger_.has_left_over(); },
          [this](const std::atomic<bool>& give_way) {
            Deadline deadline = Deadline::after(timeout_s_);
            Status status = exchanger_.flush(deadline, give_way);
            if (!status) abort(explain({Kind::send, 0, 0}, status.error()));
          },
          [this] { exchanger_.wake(); }};
}

// What was sent stays readable: left-over sends get the time of one operation to leave.
ChannelGroup::~ChannelGroup() {
  if (exchanger_.has_left_over()) {
    queue_
        .run([this] {
          std::atomic<bool> never{false};
          return exchanger_.flush(Deadline::after(timeout_s_), never);
        })
        .ok();
  }
  exchanger_.leave_in_order();
}

Error ChannelGroup::explain(const Operation& operation, const Error& error) const {
  if (exchanger_.failure()) return *exchanger_.failure();
  std::string late;
  if (error.code == ErrorCode::deadline_exceeded) {
    late = fmt::format("not done after {:g} s: ", timeout_s_.load());
  }
  std::string text = fmt::format("group {}, {} on {}, {}: {}{}", identity_.name, exchanger_.label(rank()),
                                 identity_.host, describe(operation), late, error.message);
  if (!late.empty()) text += fmt::format("; last operations: {}", recorder_.history(8));
  return {error.code, std::move(text)};
}

Status ChannelGroup::perform(const Operation& operation, const Talk& talk) {
  if (auto failure = exchanger_.failure()) return *failure;
  Stopwatch busy(books_->busy_ns);
  recorder_.begin(operation);
  Conversation conversation(exchanger_, operation, Deadline::after(timeout_s_));
  Status status = talk(conversation);
  if (!status) exchanger_.fail(explain(operation, status.error()));
  recorder_.end(status.ok());
  books_->bytes_sent += conversation.bytes_sent();
  ++books_->operations;
  if (status) return {};
  return *exchanger_.failure();
}

Status ChannelGroup::run(const Operation& operation, const Talk& talk) {
  Stopwatch exposed(books_->exposed_ns);
  return queue_.run([&] { return perform(operation, talk); });
}

Pending ChannelGroup::start(const Operation& operation, Talk talk) {
  if (size() == 1) return std::make_unique<FinishedOperation>(run(operation, talk));
  auto job = queue_.start([this, operation, talk = std::move(talk)] { return perform(operation, talk); });
  return std::make_unique<PendingJob>(std::move(job), books_);
}

// A call that makes no sense here leaves the peers waiting, so it ends the group.
Status ChannelGroup::refuse(const Operation& operation, Error error) {
  exchanger_.fail(explain(operation, error));
  return *exchanger_.failure();
}

Status ChannelGroup::check_peer(int64_t peer) const {
  if (peer >= 0 && peer < size() && peer != rank()) return {};
  return invalid("peer {} is not another rank of this group of {}", peer, size());
}

Status ChannelGroup::send(int64_t to, Bytes data) {
  if (Status fit = check_peer(to); !fit) return refuse({Kind::send, 0, data.size()}, fit.error());
  Operation operation{Kind::send, sent_[static_cast<size_t>(to)]++, data.size()};
  return run(operation, [&](Conversation& talk) {
    talk.send(to, data);
    return talk.finish_with_copies();
  });
}

Status ChannelGroup::recv(int64_t from, MutableBytes data) {
  if (Status fit = check_peer(from); !fit) return refuse({Kind::recv, 0, data.size()}, fit.error());
  Operation operation{Kind::recv, received_[static_cast<size_t>(from)]++, data.size()};
  return run(operation, [&](Conversation& talk) {
    talk.receive(from, data);
    return talk.finish();
  });
}

Status ChannelGroup::barrier() {
  return run(collective(Kind::barrier, 0), run_barrier);
}

Status ChannelGroup::broadcast(int64_t root, MutableBytes data) {
  Operation operation = collective(Kind::broadcast, data.size());
  if (root < 0 || root >= size()) {
    return refuse(operation, invalid("root {} is no rank of this group of {}", root, size()));
  }
  return run(operation, [&](Conversation& talk) { return run_broadcast(talk, root, data); });
}

Status ChannelGroup::check_all_gather(Bytes mine, MutableBytes all) const {
  if (all.size() == mine.size() * static_cast<size_t>(size())) return {};
  return invalid("all_gather of {} bytes per rank on {} ranks needs {} bytes for the result, got {}",
                 mine.size(), size(), mine.size() * static_cast<size_t>(size()), all.size());
}

Status ChannelGroup::all_gather(Bytes mine, MutableBytes all) {
  Operation operation = collective(Kind::all_gather, mine.size());
  if (Status fit = check_all_gather(mine, all); !fit) return refuse(operation, fit.error());
  return run(operation, [&](Conversation& talk) { return run_all_gather(talk, mine, all); });
}

Pending ChannelGroup::start_all_gather(Bytes mine, MutableBytes all) {
  Operation operation = collective(Kind::all_gather, mine.size());
  if (Status fit = check_all_gather(mine, all); !fit) {
    return std::make_unique<FinishedOperation>(refuse(operation, fit.error()));
  }
  return start(operation, [=](Conversation& talk) { return run_all_gather(talk, mine, all); });
}

Status ChannelGroup::check_all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) const {
  size_t ranks = static_cast<size_t>(size()), me = static_cast<size_t>(rank());
  if (out.size() != ranks || in.size() != ranks) {
    return invalid("all_to_all on {} ranks got {} blocks out and {} in", ranks, out.size(), in.size());
  }
  if (out[me].size() == in[me].size()) return {};
  return invalid("all_to_all: this rank keeps {} bytes but expects {}", out[me].size(), in[me].size());
}

Status ChannelGroup::all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) {
  Operation operation = collective(Kind::all_to_all, total(out));
  if (Status fit = check_all_to_all(out, in); !fit) return refuse(operation, fit.error());
  return run(operation, [&](Conversation& talk) { return run_all_to_all(talk, out, in); });
}

Pending ChannelGroup::start_all_to_all(std::vector<Bytes> out, std::vector<MutableBytes> in) {
  Operation operation = collective(Kind::all_to_all, total(out));
  if (Status fit = check_all_to_all(out, in); !fit) {
    return std::make_unique<FinishedOperation>(refuse(operation, fit.error()));
  }
  return start(operation, [out = std::move(out), in = std::move(in)](Conversation& talk) {
    return run_all_to_all(talk, out, in);
  });
}

Status ChannelGroup::all_reduce_sum(std::span<int64_t> values) {
  return run(collective(Kind::all_reduce_sum, values.size_bytes()),
             [&](Conversation& talk) { return run_all_reduce_sum(talk, values); });
}

Status ChannelGroup::all_reduce_max(std::span<float> values) {
  return run(collective(Kind::all_reduce_max, values.size_bytes()),
             [&](Conversation& talk) { return run_all_reduce_max(talk, values); });
}

TrafficCounters ChannelGroup::counters() const {
  return {books_->bytes_sent, books_->operations, static_cast<double>(books_->exposed_ns) * 1e-9,
          static_cast<double>(books_->busy_ns) * 1e-9};
}

}  // namespace

std::unique_ptr<Group> make_channel_group(GroupIdentity identity, Links links) {
  return std::make_unique<ChannelGroup>(std::move(identity), std::move(links));
}

}  // namespace tessera::comm
