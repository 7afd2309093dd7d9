#include "recsys_roles/remote_servers.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::GetOptions;
using recsys_train::Routing;
using recsys_train::ServedStore;

enum class ServerRequest : uint8_t { get, put, stats, digest };

class RemoteServers : public recsys_train::EmbeddingServers {
 public:
  RemoteServers(const Meeting& meeting, int64_t num_servers) {
    for (int64_t i = 0; i < num_servers; ++i)
      callers_.push_back(std::make_unique<Caller>(meeting, server_role(i)));
  }

  int64_t num_servers() const override { return static_cast<int64_t>(callers_.size()); }

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
             const GetOptions& options) override {
    if (ids.empty()) return {};
    const auto dim = static_cast<int64_t>(rows.size() / ids.size());
    Routing routing = recsys_train::route(ids, num_servers());
    std::vector<float> part;
    return ask_all(
        [&](size_t server) {
          MessageWriter message;
          return message.value(ServerRequest::get)
              .value(group)
              .value(options)
              .array(routing.ids[server])
              .take();
        },
        [&](size_t server, MessageReader& answer) {
          answer.array(part);
          if (part.size() != routing.ids[server].size() * static_cast<size_t>(dim))
            return Status(make_error(ErrorCode::data_loss, "{} values for {} rows of dimension {}", part.size(),
                                     routing.ids[server].size(), dim));
          recsys_train::scatter(part, routing.positions[server], dim, rows);
          return Status();
        },
        [&](size_t server) { return !routing.ids[server].empty(); });
  }

  // Servers count the puts of each step, so those without an id of theirs hear of it as well.
  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    const auto dim = static_cast<int64_t>(ids.empty() ? 0 : gradients.size() / ids.size());
    Routing routing = recsys_train::route(ids, num_servers());
    std::vector<float> part;
    return ask_all([&](size_t server) {
      recsys_train::gather(gradients, routing.positions[server], dim, part);
      MessageWriter message;
      message.value(ServerRequest::put).value(group).value(options).array(routing.ids[server]);
      return message.array(part).take();
    });
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    recsys::GroupStats sum;
    TESSERA_RETURN_IF_ERROR(
        ask_all([&](size_t) { return MessageWriter().value(ServerRequest::stats).value(group).take(); },
                [&](size_t, MessageReader& answer) {
                  recsys_train::add(answer.value<recsys::GroupStats>(), sum);
                  return Status();
                }));
    return sum;
  }

  Result<uint64_t> digest(int64_t group, int64_t step) override {
    uint64_t sum = 0;
    TESSERA_RETURN_IF_ERROR(ask_all(
        [&](size_t) { return MessageWriter().value(ServerRequest::digest).value(group).value(step).take(); },
        [&](size_t, MessageReader& answer) {
          sum += answer.value<uint64_t>();
          return Status();
        }));
    return sum;
  }

 private:
  using Ask = std::function<Message(size_t server)>;
  using Take = std::function<Status(size_t server, MessageReader& answer)>;
  using Concerns = std::function<bool(size_t server)>;

  // One call to each server that it concerns, all at once. Every call is finished, also after an error.
  Status ask_all(const Ask& ask, const Take& take = {}, const Concerns& concerns = {}) {
    std::vector<std::optional<Caller::Pending>> pending(callers_.size());
    for (size_t i = 0; i < callers_.size(); ++i)
      if (!concerns || concerns(i)) pending[i] = callers_[i]->start(ask(i));
    Status first;
    for (size_t i = 0; i < callers_.size(); ++i) {
      if (!pending[i]) continue;
      Status status = finish(i, std::move(*pending[i]), take);
      if (first.ok() && !status.ok()) first = status.error().within(callers_[i]->role());
    }
    return first;
  }

  Status finish(size_t server, Caller::Pending pending, const Take& take) {
    TESSERA_ASSIGN_OR_RETURN(Message bytes, callers_[server]->finish(std::move(pending)));
    MessageReader answer(bytes);
    if (take) TESSERA_RETURN_IF_ERROR(take(server, answer));
    return answer.end();
  }

  std::vector<std::unique_ptr<Caller>> callers_;
};

Result<Message> answer_get(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<GetOptions>();
  auto ids = request.array<uint64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::vector<float> rows(ids.size() * static_cast<size_t>(store.store().group(group).dim));
  TESSERA_RETURN_IF_ERROR(store.get(group, ids, rows, options));
  return MessageWriter().array(rows).take();
}

Result<Message> answer_put(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<recsys::PutOptions>();
  auto ids = request.array<uint64_t>();
  auto gradients = request.array<float>();
  TESSERA_RETURN_IF_ERROR(request.end());
  if (gradients.size() != ids.size() * static_cast<size_t>(store.store().group(group).dim))
    return make_error(ErrorCode::data_loss, "{} values for the gradients of {} ids in group {}",
                      gradients.size(), ids.size(), group);
  TESSERA_RETURN_IF_ERROR(store.put(group, ids, gradients, options));
  return Message();
}

}  // namespace

std::string server_role(int64_t number) {
  return fmt::format("server:{}", number);
}

Door::Handler serve_store(ServedStore& store) {
  return [&store](MessageReader& request) -> Result<Message> {
    auto kind = request.value<ServerRequest>();
    auto group = request.value<int64_t>();
    if (group < 0 || group >= store.store().num_groups())
      return make_error(ErrorCode::data_loss, "group {} of {}; do all roles have the same configuration?",
                        group, store.store().num_groups());
    if (kind == ServerRequest::get) return answer_get(store, group, request);
    if (kind == ServerRequest::put) return answer_put(store, group, request);
    if (kind == ServerRequest::stats) return MessageWriter().value(store.store().stats(group)).take();
    TESSERA_ASSIGN_OR_RETURN(uint64_t sum, store.digest(group, request.value<int64_t>()));
    return MessageWriter().value(sum).take();
  };
}

std::unique_ptr<recsys_train::EmbeddingServers> make_remote_servers(const Meeting& meeting,
                                                                    int64_t num_servers) {
  return std::make_unique<RemoteServers>(meeting, num_servers);
}

}  // namespace tessera::recsys_roles
