#include "recsys_roles/remote_servers.h"

#include <algorithm>
#include <filesystem>

#include "core/clock.h"
#include "recsys_roles/late_watch.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::GetOptions;
using recsys_train::Routing;
using recsys_train::ServedStore;
using recsys_train::VersionRequest;

enum class ServerRequest : uint8_t {
  get,
  packed_get,
  put,
  packed_put,
  stats,
  digest,
  begin_save,
  finish_save,
  save_version
};

class RemoteServers : public recsys_train::EmbeddingServers {
 public:
  RemoteServers(const Meeting& meeting, int64_t num_servers, const recsys_train::WireConfig& wire,
                const std::vector<int64_t>& dims) {
    if (wire.on) wire_ = std::make_unique<recsys_train::WireEnd>(wire, dims);
    std::vector<std::string> roles;
    for (int64_t i = 0; i < num_servers; ++i)
      callers_.push_back(std::make_unique<Caller>(meeting, roles.emplace_back(server_role(i))));
    late_ = std::make_unique<LateWatch>(
        std::move(roles), [store = meeting.store](const std::string& line) { (void)store->set(kSlow, line); });
  }

  int64_t num_servers() const override { return static_cast<int64_t>(callers_.size()); }

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override {
    if (ids.empty()) return {};
    if (wire_) return packed_get(group, ids, rows, options, applied);
    const auto dim = static_cast<int64_t>(rows.size() / ids.size());
    Routing routing = recsys_train::route(ids, num_servers());
    std::vector<float> part;
    int64_t least = INT64_MAX;
    if (applied == nullptr) applied = &least;
    *applied = INT64_MAX;
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
          *applied = std::min(*applied, answer.value<int64_t>());
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
      std::vector<std::byte> packed;
      if (wire_ && wire_->give(group, routing.ids[server], part, packed))
        return message.value(ServerRequest::packed_put).value(group).value(options).array(packed).take();
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

  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    return ask_all([&](size_t server) {
      MessageWriter message;
      message.value(ServerRequest::begin_save).value(int64_t{0}).text(folder);
      return message.text(recsys_train::rows_file(step, static_cast<int64_t>(server)))
          .value(step)
          .value(full)
          .take();
    });
  }

  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    std::vector<std::vector<std::string>> files(callers_.size());
    TESSERA_RETURN_IF_ERROR(ask_all(
        [&](size_t) {
          return MessageWriter().value(ServerRequest::finish_save).value(int64_t{0}).value(step).take();
        },
        [&](size_t server, MessageReader& answer) {
          read_texts(answer, files[server]);
          return Status();
        }));
    return files;
  }

  Status save_version(const std::string& folder, const VersionRequest& version) override {
    return ask_all([&](size_t server) {
      std::string path = folder + "/" + recsys_train::version_rows_file(static_cast<int64_t>(server), version);
      MessageWriter message;
      message.value(ServerRequest::save_version).value(int64_t{0}).text(path);
      return message.value(version).take();
    });
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

  recsys_train::Traffic traffic() const override {
    return {.wire = wire_ ? wire_->count() : recsys_train::WireCount(), .cache = {}};
  }

 private:
  Status packed_get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                    const GetOptions& options, int64_t* applied) {
    const auto dim = static_cast<int64_t>(rows.size() / ids.size());
    Routing routing = recsys_train::route(ids, num_servers());
    std::vector<recsys::SortedIds> sorted(callers_.size());
    std::vector<std::byte> packed;
    std::vector<float> part;
    int64_t least = INT64_MAX;
    TESSERA_RETURN_IF_ERROR(ask_all(
        [&](size_t server) {
          packed.clear();
          sorted[server] = wire_->ask(routing.ids[server], packed);
          MessageWriter message;
          message.value(ServerRequest::packed_get).value(group).value(options).value(wire_->row_type());
          return message.array(packed).take();
        },
        [&](size_t server, MessageReader& answer) {
          least = std::min(least, answer.value<int64_t>());
          answer.array(packed);
          part.resize(routing.ids[server].size() * static_cast<size_t>(dim));
          Status taken = wire_->take(group, sorted[server], packed, part);
          if (taken.ok()) recsys_train::scatter(part, routing.positions[server], dim, rows);
          return taken;
        },
        [&](size_t server) { return !routing.ids[server].empty(); }));
    if (applied != nullptr) *applied = least;
    return {};
  }

  using Ask = std::function<Message(size_t server)>;
  using Take = std::function<Status(size_t server, MessageReader& answer)>;
  using Concerns = std::function<bool(size_t server)>;

  // One call to each server that it concerns, all at once. Every call is finished, also after an error.
  Status ask_all(const Ask& ask, const Take& take = {}, const Concerns& concerns = {}) {
    std::vector<std::optional<Caller::Pending>> pending(callers_.size());
    for (size_t i = 0; i < callers_.size(); ++i)
      if (!concerns || concerns(i)) pending[i] = callers_[i]->start(ask(i));
    Status first;
    const size_t first_taken = calls_++;
    for (size_t k = 0; k < callers_.size(); ++k) {
      const size_t i = (first_taken + k) % callers_.size();
      if (!pending[i]) continue;
      Status status = finish(i, std::move(*pending[i]), take);
      if (first.ok() && !status.ok()) first = status.error().within(callers_[i]->role());
    }
    return first;
  }

  Status finish(size_t server, Caller::Pending pending, const Take& take) {
    auto start = Clock::now();
    TESSERA_ASSIGN_OR_RETURN(Message bytes, callers_[server]->finish(std::move(pending)));
    late_->waited(server, seconds_since(start));
    MessageReader answer(bytes);
    if (take) TESSERA_RETURN_IF_ERROR(take(server, answer));
    return answer.end();
  }

  std::vector<std::unique_ptr<Caller>> callers_;
  std::unique_ptr<LateWatch> late_;
  std::atomic<size_t> calls_ = 0;
  std::unique_ptr<recsys_train::WireEnd> wire_;  // null: ids and rows as they are
};

Result<std::vector<float>> rows_of(ServedStore& store, int64_t group, std::span<const uint64_t> ids,
                                   const GetOptions& options, int64_t* applied) {
  std::vector<float> rows(ids.size() * static_cast<size_t>(store.store().group(group).dim));
  TESSERA_RETURN_IF_ERROR(store.get(group, ids, rows, options, applied));
  return rows;
}

Status put_rows(ServedStore& store, int64_t group, std::span<const uint64_t> ids,
                std::span<const float> gradients, const recsys::PutOptions& options) {
  if (gradients.size() == ids.size() * static_cast<size_t>(store.store().group(group).dim))
    return store.put(group, ids, gradients, options);
  return make_error(ErrorCode::data_loss, "{} values for the gradients of {} ids in group {}", gradients.size(),
                    ids.size(), group);
}

Result<Message> answer_get(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<GetOptions>();
  auto ids = request.array<uint64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  int64_t applied = 0;
  TESSERA_ASSIGN_OR_RETURN(auto rows, rows_of(store, group, ids, options, &applied));
  return MessageWriter().value(applied).array(rows).take();
}

Result<Message> answer_packed_get(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<GetOptions>();
  auto type = request.value<recsys::RowType>();
  auto packed = request.array<std::byte>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::span<const std::byte> in = packed;
  TESSERA_ASSIGN_OR_RETURN(auto ids, recsys::unpack_ids(in));
  int64_t applied = 0;
  TESSERA_ASSIGN_OR_RETURN(auto rows, rows_of(store, group, ids, options, &applied));
  packed.clear();
  recsys::pack_rows(rows, {.type = type}, packed);
  return MessageWriter().value(applied).array(packed).take();
}

Result<Message> answer_put(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<recsys::PutOptions>();
  auto ids = request.array<uint64_t>();
  auto gradients = request.array<float>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(put_rows(store, group, ids, gradients, options));
  return Message();
}

Result<Message> answer_packed_put(ServedStore& store, int64_t group, MessageReader& request) {
  auto options = request.value<recsys::PutOptions>();
  auto packed = request.array<std::byte>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::span<const std::byte> in = packed;
  TESSERA_ASSIGN_OR_RETURN(auto ids, recsys::unpack_ids(in));
  TESSERA_ASSIGN_OR_RETURN(auto gradients, recsys::unpack_rows(in));
  TESSERA_RETURN_IF_ERROR(put_rows(store, group, ids, gradients, options));
  return Message();
}

Result<Message> answer_begin_save(ServedStore& store, MessageReader& request) {
  std::string folder = request.text(), name = request.text();
  auto step = request.value<int64_t>();
  auto full = request.value<bool>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::error_code failure;  // the store says it
  std::filesystem::create_directories((std::filesystem::path(folder) / name).parent_path(), failure);
  TESSERA_RETURN_IF_ERROR(store.begin_save(folder, name, step, full));
  return Message();
}

Result<Message> answer_save_version(ServedStore& store, MessageReader& request) {
  std::string path = request.text();
  auto version = request.value<VersionRequest>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(store.save_version(path, version));
  return Message();
}

Result<Message> answer_finish_save(ServedStore& store, MessageReader& request) {
  auto step = request.value<int64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_ASSIGN_OR_RETURN(auto files, store.finish_save(step));
  MessageWriter answer;
  write_texts(files, answer);
  return answer.take();
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
    if (kind == ServerRequest::packed_get) return answer_packed_get(store, group, request);
    if (kind == ServerRequest::put) return answer_put(store, group, request);
    if (kind == ServerRequest::packed_put) return answer_packed_put(store, group, request);
    if (kind == ServerRequest::begin_save) return answer_begin_save(store, request);
    if (kind == ServerRequest::finish_save) return answer_finish_save(store, request);
    if (kind == ServerRequest::save_version) return answer_save_version(store, request);
    if (kind == ServerRequest::stats) return MessageWriter().value(store.store().stats(group)).take();
    TESSERA_ASSIGN_OR_RETURN(uint64_t sum, store.digest(group, request.value<int64_t>()));
    return MessageWriter().value(sum).take();
  };
}

std::unique_ptr<recsys_train::EmbeddingServers> make_remote_servers(const Meeting& meeting, int64_t num_servers,
                                                                    const recsys_train::WireConfig& wire,
                                                                    const std::vector<int64_t>& dims) {
  return std::make_unique<RemoteServers>(meeting, num_servers, wire, dims);
}

}  // namespace tessera::recsys_roles
