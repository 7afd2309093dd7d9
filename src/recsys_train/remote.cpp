#include "recsys_train/remote.h"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace tessera::recsys_train {
namespace {

constexpr int64_t kClient = 0, kServer = 1;
constexpr int64_t kMostIds = int64_t{1} << 32, kMostText = 1 << 16;

enum class Operation : uint32_t { get = 1, put = 2, stats = 3, goodbye = 4 };

struct Request {
  Operation operation = Operation::goodbye;
  recsys::Access access = recsys::Access::read;
  uint8_t unused[3] = {};
  int64_t group = 0, count = 0;
  uint64_t step = 0;
  double rate_scale = 1;
};
static_assert(sizeof(Request) == 40);

struct Answer {
  int64_t code = -1;  // of the error; -1: success
  int64_t bytes = 0;
};
static_assert(sizeof(Answer) == 16);

template <class T>
Bytes bytes_of_one(const T& value) {
  return std::as_bytes(std::span<const T>(&value, 1));
}
template <class T>
MutableBytes mutable_bytes_of_one(T& value) {
  return std::as_writable_bytes(std::span<T>(&value, 1));
}

// ---- client ----

Status ask(Group& link, const Request& request, std::span<const uint64_t> ids,
           std::span<const float> gradients) {
  TESSERA_RETURN_IF_ERROR(link.send(kServer, bytes_of_one(request)));
  if (!ids.empty()) TESSERA_RETURN_IF_ERROR(link.send(kServer, std::as_bytes(ids)));
  if (!gradients.empty()) TESSERA_RETURN_IF_ERROR(link.send(kServer, std::as_bytes(gradients)));
  return {};
}

Status hear(Group& link, MutableBytes payload) {
  Answer answer;
  TESSERA_RETURN_IF_ERROR(link.recv(kServer, mutable_bytes_of_one(answer)));
  if (answer.code >= 0) {
    std::string text(static_cast<size_t>(std::clamp<int64_t>(answer.bytes, 0, kMostText)), ' ');
    TESSERA_RETURN_IF_ERROR(link.recv(kServer, std::as_writable_bytes(std::span(text.data(), text.size()))));
    return Error{static_cast<ErrorCode>(answer.code), text};
  }
  if (answer.bytes != static_cast<int64_t>(payload.size()))
    return make_error(ErrorCode::data_loss, "an answer of {} bytes, expected {}", answer.bytes, payload.size());
  return payload.empty() ? Status() : link.recv(kServer, payload);
}

class RemoteServers : public EmbeddingServers {
 public:
  RemoteServers(std::vector<ServerLinks> links, const std::vector<recsys::GroupOptions>& groups)
      : links_(std::move(links)) {
    for (const auto& group : groups) dims_.push_back(group.dim);
  }
  ~RemoteServers() override {
    for (ServerLinks& links : links_)
      for (Group* link : {links.read.get(), links.update.get()}) (void)ask(*link, {}, {}, {}).ok();
  }

  int64_t num_servers() const override { return static_cast<int64_t>(links_.size()); }

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
             recsys::Access access) override {
    std::lock_guard lock(read_mutex_);
    Routing routing = route(ids, num_servers());
    for (size_t i = 0; i < links_.size(); ++i) {
      Request request{
          .operation = Operation::get, .access = access, .group = group, .count = count(routing.ids[i])};
      TESSERA_RETURN_IF_ERROR(named(i, ask(*links_[i].read, request, routing.ids[i], {})));
    }
    // Every answer is taken, so that links stay in step after an error of one store.
    Status first;
    std::vector<float> part;
    for (size_t i = 0; i < links_.size(); ++i) {
      part.resize(routing.ids[i].size() * static_cast<size_t>(dim(group)));
      Status status = named(i, hear(*links_[i].read, std::as_writable_bytes(std::span(part))));
      if (status.ok())
        scatter(part, routing.positions[i], dim(group), rows);
      else if (first.ok())
        first = status;
    }
    return first;
  }

  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    std::lock_guard lock(update_mutex_);
    Routing routing = route(ids, num_servers());
    std::vector<float> part;
    for (size_t i = 0; i < links_.size(); ++i) {
      gather(gradients, routing.positions[i], dim(group), part);
      Request request{.operation = Operation::put,
                      .group = group,
                      .count = count(routing.ids[i]),
                      .step = options.step,
                      .rate_scale = options.learning_rate_scale};
      TESSERA_RETURN_IF_ERROR(named(i, ask(*links_[i].update, request, routing.ids[i], part)));
    }
    Status first;
    for (size_t i = 0; i < links_.size(); ++i)
      if (Status status = named(i, hear(*links_[i].update, {})); !status.ok() && first.ok()) first = status;
    return first;
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    std::lock_guard lock(read_mutex_);
    recsys::GroupStats sum;
    for (size_t i = 0; i < links_.size(); ++i) {
      recsys::GroupStats one;
      TESSERA_RETURN_IF_ERROR(
          named(i, ask(*links_[i].read, {.operation = Operation::stats, .group = group}, {}, {})));
      TESSERA_RETURN_IF_ERROR(named(i, hear(*links_[i].read, mutable_bytes_of_one(one))));
      add(one, sum);
    }
    return sum;
  }

 private:
  static int64_t count(const std::vector<uint64_t>& ids) { return static_cast<int64_t>(ids.size()); }
  int64_t dim(int64_t group) const { return dims_[static_cast<size_t>(group)]; }
  static Status named(size_t server, const Status& status) {
    return status.ok() ? status : Status(status.error().within(fmt::format("embedding server {}", server)));
  }

  std::vector<ServerLinks> links_;
  std::vector<int64_t> dims_;
  std::mutex read_mutex_, update_mutex_;
};

// ---- server ----

Status answer_error(Group& link, const Error& error) {
  std::string text = error.message.substr(0, kMostText);
  if (text.empty()) text = "no reason given";
  Answer answer{.code = static_cast<int64_t>(error.code), .bytes = static_cast<int64_t>(text.size())};
  TESSERA_RETURN_IF_ERROR(link.send(kClient, bytes_of_one(answer)));
  return link.send(kClient, std::as_bytes(std::span(text.data(), text.size())));
}

Status answer(Group& link, Bytes payload) {
  TESSERA_RETURN_IF_ERROR(
      link.send(kClient, bytes_of_one(Answer{.bytes = static_cast<int64_t>(payload.size())})));
  return payload.empty() ? Status() : link.send(kClient, payload);
}

// One request's ids and numbers; kept between requests to save allocations.
struct Buffers {
  std::vector<uint64_t> ids;
  std::vector<float> numbers;
};

Status check(const Request& request, const recsys::Store& store) {
  if (request.group < 0 || request.group >= store.num_groups() || request.count < 0 || request.count > kMostIds)
    return make_error(ErrorCode::data_loss, "a request for {} ids of group {}; the store has {} groups",
                      request.count, request.group, store.num_groups());
  return {};
}

Status serve_one(Group& link, recsys::Store& store, const Request& request, Buffers& buffers) {
  const auto dim = static_cast<size_t>(store.group(request.group).dim);
  buffers.ids.resize(static_cast<size_t>(request.count));
  buffers.numbers.resize(buffers.ids.size() * dim);
  if (!buffers.ids.empty())
    TESSERA_RETURN_IF_ERROR(link.recv(kClient, std::as_writable_bytes(std::span(buffers.ids))));
  if (request.operation == Operation::get) {
    Status status = store.get(request.group, buffers.ids, buffers.numbers, request.access);
    return status.ok() ? answer(link, std::as_bytes(std::span(buffers.numbers)))
                       : answer_error(link, status.error());
  }
  if (request.operation == Operation::put) {
    if (!buffers.ids.empty())
      TESSERA_RETURN_IF_ERROR(link.recv(kClient, std::as_writable_bytes(std::span(buffers.numbers))));
    auto counted = store.put(request.group, buffers.ids, buffers.numbers,
                             {.step = request.step, .learning_rate_scale = request.rate_scale});
    return counted.ok() ? answer(link, {}) : answer_error(link, counted.error());
  }
  recsys::GroupStats stats = store.stats(request.group);
  return answer(link, bytes_of_one(stats));
}

}  // namespace

std::unique_ptr<EmbeddingServers> make_remote_servers(std::vector<ServerLinks> links,
                                                      const std::vector<recsys::GroupOptions>& groups) {
  return std::make_unique<RemoteServers>(std::move(links), groups);
}

Status serve_rows(Group& link, recsys::Store& store) {
  Buffers buffers;
  for (;;) {
    Request request;
    TESSERA_RETURN_IF_ERROR(link.recv(kClient, mutable_bytes_of_one(request)));
    if (request.operation == Operation::goodbye) return {};
    TESSERA_RETURN_IF_ERROR(check(request, store));
    TESSERA_RETURN_IF_ERROR(serve_one(link, store, request, buffers));
  }
}

}  // namespace tessera::recsys_train
