#include "recsys_roles/remote_servers.h"

#include <algorithm>
#include <filesystem>

#include "core/clock.h"
#include "recsys_roles/late_watch.h"
#include "recsys_roles/server_map.h"

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

// The servers of one map.
struct Crew {
  ServerMap map;
  std::vector<std::unique_ptr<Caller>> callers;
  std::unique_ptr<LateWatch> late;
  std::atomic<size_t> calls = 0;
  int64_t size() const { return static_cast<int64_t>(callers.size()); }
};

// Gradients on their way, as the servers are to apply them: what rounding for the wire made of them stays with
// them when they are sent again to other servers.
struct Gradients {
  std::vector<uint64_t> ids;
  std::vector<float> values;
};

class RemoteServers : public recsys_train::EmbeddingServers {
 public:
  RemoteServers(const Meeting& meeting, int64_t num_servers, const recsys::WireConfig& wire,
                const std::vector<int64_t>& dims)
      : meeting_(meeting), configured_(num_servers), dims_(dims) {
    if (wire.on) wire_ = std::make_unique<recsys::WireEnd>(wire, dims);
    crew_ = make_crew({.number = 0, .servers = num_servers});
  }

  int64_t num_servers() const override { return crew()->size(); }

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override {
    if (ids.empty()) return {};
    return by_map([&](Crew& crew) {
      GetOptions by = options;
      by.map = crew.map.number;
      return wire_ ? packed_get(crew, group, ids, rows, by, applied)
                   : plain_get(crew, group, ids, rows, by, applied);
    });
  }

  // Servers count the puts of each step, so those without an id of theirs hear of it as well.
  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    Gradients rounded;
    bool again = false;
    return by_map([&](Crew& crew) {
      if (again) return put_to(crew, group, rounded.ids, rounded.values, options, nullptr);
      again = true;
      Status status = put_to(crew, group, ids, gradients, options, wire_ ? &rounded : nullptr);
      if (!wire_ && !status.ok()) rounded = {{ids.begin(), ids.end()}, {gradients.begin(), gradients.end()}};
      return status;
    });
  }

  Result<recsys::GroupStats> stats(int64_t group) override {
    recsys::GroupStats sum;
    TESSERA_RETURN_IF_ERROR(by_map([&](Crew& crew) {
      sum = {};
      return ask_all(
          crew, [&](size_t) { return request_of(crew, ServerRequest::stats, group).take(); },
          [&](size_t, MessageReader& answer) {
            recsys_train::add(answer.value<recsys::GroupStats>(), sum);
            return Status();
          });
    }));
    return sum;
  }

  Status begin_save(const std::string& folder, int64_t step, bool full) override {
    return by_map([&](Crew& crew) {
      return ask_all(crew, [&](size_t server) {
        MessageWriter message = request_of(crew, ServerRequest::begin_save, 0);
        message.text(folder).text(recsys_train::rows_file(step, static_cast<int64_t>(server)));
        return message.value(step).value(full).take();
      });
    });
  }

  Result<std::vector<std::vector<std::string>>> finish_save(int64_t step) override {
    std::vector<std::vector<std::string>> files;
    TESSERA_RETURN_IF_ERROR(by_map([&](Crew& crew) {
      files.assign(crew.callers.size(), {});
      return ask_all(
          crew, [&](size_t) { return request_of(crew, ServerRequest::finish_save, 0).value(step).take(); },
          [&](size_t server, MessageReader& answer) {
            read_texts(answer, files[server]);
            return Status();
          });
    }));
    return files;
  }

  Result<int64_t> save_version(const std::string& folder, const VersionRequest& version) override {
    int64_t servers = 0;
    TESSERA_RETURN_IF_ERROR(by_map([&](Crew& crew) {
      servers = crew.size();
      return ask_all(crew, [&](size_t server) {
        std::string path =
            folder + "/" + recsys_train::version_rows_file(static_cast<int64_t>(server), version);
        return request_of(crew, ServerRequest::save_version, 0).text(path).value(version).take();
      });
    }));
    return servers;
  }

  Result<uint64_t> digest(int64_t group, int64_t step) override {
    uint64_t sum = 0;
    TESSERA_RETURN_IF_ERROR(by_map([&](Crew& crew) {
      sum = 0;
      return ask_all(
          crew, [&](size_t) { return request_of(crew, ServerRequest::digest, group).value(step).take(); },
          [&](size_t, MessageReader& answer) {
            sum += answer.value<uint64_t>();
            return Status();
          });
    }));
    return sum;
  }

  recsys_train::Traffic traffic() const override {
    return {.wire = wire_ ? wire_->count() : recsys::WireCount(), .cache = {}};
  }

 private:
  std::shared_ptr<Crew> crew() const {
    std::lock_guard lock(mutex_);
    return crew_;
  }

  std::shared_ptr<Crew> make_crew(const ServerMap& map) {
    auto crew = std::make_shared<Crew>();
    crew->map = map;
    std::vector<std::string> roles;
    auto is_past = [this, number = map.number] {
      auto now = read_map(*meeting_.store, configured_);
      return now && now->number > number;
    };
    for (int64_t i = 0; i < map.servers; ++i)
      crew->callers.push_back(std::make_unique<Caller>(meeting_, roles.emplace_back(server_role(i)), is_past));
    crew->late = std::make_unique<LateWatch>(
        std::move(roles), [store = meeting_.store](const std::string& line) { (void)store->set(kSlow, line); });
    return crew;
  }

  // Whether there is a newer map than this one.
  Result<bool> follow_map(uint64_t number) {
    TESSERA_ASSIGN_OR_RETURN(ServerMap now, read_map(*meeting_.store, configured_));
    std::lock_guard lock(mutex_);
    if (now.number > crew_->map.number) crew_ = make_crew(now);
    return crew_->map.number > number;
  }

  // Rows may move to other servers at any moment: what went by the old map is done again by the new one.
  template <class Work>
  Status by_map(const Work& work) {
    for (;;) {
      auto now = crew();
      Status status = work(*now);
      if (status.ok() || status.error().code != ErrorCode::unavailable) return status;
      TESSERA_ASSIGN_OR_RETURN(bool moved, follow_map(now->map.number));
      if (!moved) return status;
    }
  }

  static MessageWriter request_of(const Crew& crew, ServerRequest kind, int64_t group) {
    MessageWriter message;
    message.value(kind).value(group).value(crew.map.number);
    return message;
  }

  // `rounded`, if any, becomes what was sent.
  Status put_to(Crew& crew, int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                const recsys::PutOptions& options, Gradients* rounded) {
    const auto dim = static_cast<int64_t>(ids.empty() ? 0 : gradients.size() / ids.size());
    Routing routing = recsys_train::route(ids, crew.size());
    std::vector<float> part;
    std::vector<std::vector<std::byte>> sent(crew.callers.size());
    Status status = ask_all(crew, [&](size_t server) {
      recsys_train::gather(gradients, routing.positions[server], dim, part);
      if (rounded != nullptr && wire_->give(group, routing.ids[server], part, sent[server]))
        return request_of(crew, ServerRequest::packed_put, group).value(options).array(sent[server]).take();
      if (rounded != nullptr) keep(routing.ids[server], part, *rounded);
      return request_of(crew, ServerRequest::put, group)
          .value(options)
          .array(routing.ids[server])
          .array(part)
          .take();
    });
    if (status.ok() || rounded == nullptr) return status;
    for (const auto& packed : sent) {
      if (packed.empty()) continue;
      std::span<const std::byte> in = packed;
      TESSERA_ASSIGN_OR_RETURN(auto keys, recsys::unpack_ids(in));
      TESSERA_ASSIGN_OR_RETURN(auto values, recsys::unpack_rows(in));
      keep(keys, values, *rounded);
    }
    return status;
  }

  static void keep(std::span<const uint64_t> ids, std::span<const float> values, Gradients& all) {
    all.ids.insert(all.ids.end(), ids.begin(), ids.end());
    all.values.insert(all.values.end(), values.begin(), values.end());
  }

  Status plain_get(Crew& crew, int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                   const GetOptions& options, int64_t* applied) {
    const auto dim = static_cast<int64_t>(rows.size() / ids.size());
    Routing routing = recsys_train::route(ids, crew.size());
    std::vector<float> part;
    int64_t least = INT64_MAX;
    TESSERA_RETURN_IF_ERROR(ask_all(
        crew,
        [&](size_t server) {
          return request_of(crew, ServerRequest::get, group).value(options).array(routing.ids[server]).take();
        },
        [&](size_t server, MessageReader& answer) {
          least = std::min(least, answer.value<int64_t>());
          answer.array(part);
          if (part.size() != routing.ids[server].size() * static_cast<size_t>(dim))
            return Status(make_error(ErrorCode::data_loss, "{} values for {} rows of dimension {}", part.size(),
                                     routing.ids[server].size(), dim));
          recsys_train::scatter(part, routing.positions[server], dim, rows);
          return Status();
        },
        [&](size_t server) { return !routing.ids[server].empty(); }));
    if (applied != nullptr) *applied = least;
    return {};
  }

  Status packed_get(Crew& crew, int64_t group, std::span<const uint64_t> ids, std::span<float> rows,
                    const GetOptions& options, int64_t* applied) {
    const auto dim = static_cast<int64_t>(rows.size() / ids.size());
    Routing routing = recsys_train::route(ids, crew.size());
    std::vector<recsys::SortedIds> sorted(crew.callers.size());
    std::vector<std::byte> packed;
    std::vector<float> part;
    int64_t least = INT64_MAX;
    TESSERA_RETURN_IF_ERROR(ask_all(
        crew,
        [&](size_t server) {
          packed.clear();
          sorted[server] = wire_->ask(routing.ids[server], packed);
          return request_of(crew, ServerRequest::packed_get, group)
              .value(options)
              .value(wire_->row_type())
              .array(packed)
              .take();
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
  static Status ask_all(Crew& crew, const Ask& ask, const Take& take = {}, const Concerns& concerns = {}) {
    std::vector<std::optional<Caller::Pending>> pending(crew.callers.size());
    for (size_t i = 0; i < crew.callers.size(); ++i)
      if (!concerns || concerns(i)) pending[i] = crew.callers[i]->start(ask(i));
    Status first;
    const size_t first_taken = crew.calls++;
    for (size_t k = 0; k < crew.callers.size(); ++k) {
      const size_t i = (first_taken + k) % crew.callers.size();
      if (!pending[i]) continue;
      Status status = finish(crew, i, std::move(*pending[i]), take);
      if (first.ok() && !status.ok()) first = status.error().within(crew.callers[i]->role());
    }
    return first;
  }

  static Status finish(Crew& crew, size_t server, Caller::Pending pending, const Take& take) {
    auto start = Clock::now();
    TESSERA_ASSIGN_OR_RETURN(Message bytes, crew.callers[server]->finish(std::move(pending)));
    crew.late->waited(server, seconds_since(start));
    MessageReader answer(bytes);
    if (take) TESSERA_RETURN_IF_ERROR(take(server, answer));
    return answer.end();
  }

  const Meeting meeting_;
  const int64_t configured_;
  const std::vector<int64_t> dims_;
  mutable std::mutex mutex_;
  std::shared_ptr<Crew> crew_;
  std::unique_ptr<recsys::WireEnd> wire_;  // null: ids and rows as they are
};

Result<std::vector<float>> rows_of(ServedStore& store, int64_t group, std::span<const uint64_t> ids,
                                   const GetOptions& options, int64_t* applied) {
  std::vector<float> rows(ids.size() * static_cast<size_t>(store.store().group(group).dim));
  TESSERA_RETURN_IF_ERROR(store.get(group, ids, rows, options, applied));
  return rows;
}

Status put_rows(ServedStore& store, int64_t group, std::span<const uint64_t> ids,
                std::span<const float> gradients, const recsys::PutOptions& options, uint64_t map) {
  if (gradients.size() == ids.size() * static_cast<size_t>(store.store().group(group).dim))
    return store.put(group, ids, gradients, options, map);
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

Result<Message> answer_put(ServedStore& store, int64_t group, uint64_t map, MessageReader& request) {
  auto options = request.value<recsys::PutOptions>();
  auto ids = request.array<uint64_t>();
  auto gradients = request.array<float>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(put_rows(store, group, ids, gradients, options, map));
  return Message();
}

Result<Message> answer_packed_put(ServedStore& store, int64_t group, uint64_t map, MessageReader& request) {
  auto options = request.value<recsys::PutOptions>();
  auto packed = request.array<std::byte>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::span<const std::byte> in = packed;
  TESSERA_ASSIGN_OR_RETURN(auto ids, recsys::unpack_ids(in));
  TESSERA_ASSIGN_OR_RETURN(auto gradients, recsys::unpack_rows(in));
  TESSERA_RETURN_IF_ERROR(put_rows(store, group, ids, gradients, options, map));
  return Message();
}

Result<Message> answer_begin_save(ServedStore& store, uint64_t map, MessageReader& request) {
  std::string folder = request.text(), name = request.text();
  auto step = request.value<int64_t>();
  auto full = request.value<bool>();
  TESSERA_RETURN_IF_ERROR(request.end());
  std::error_code failure;  // the store says it
  std::filesystem::create_directories((std::filesystem::path(folder) / name).parent_path(), failure);
  TESSERA_RETURN_IF_ERROR(store.begin_save(folder, name, step, full, map));
  return Message();
}

Result<Message> answer_save_version(ServedStore& store, uint64_t map, MessageReader& request) {
  std::string path = request.text();
  auto version = request.value<VersionRequest>();
  TESSERA_RETURN_IF_ERROR(request.end());
  TESSERA_RETURN_IF_ERROR(store.save_version(path, version, map));
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
    const auto map = request.value<uint64_t>();
    if (group < 0 || group >= store.store().num_groups())
      return make_error(ErrorCode::data_loss, "group {} of {}; do all roles have the same configuration?",
                        group, store.store().num_groups());
    if (kind == ServerRequest::get) return answer_get(store, group, request);
    if (kind == ServerRequest::packed_get) return answer_packed_get(store, group, request);
    if (kind == ServerRequest::put) return answer_put(store, group, map, request);
    if (kind == ServerRequest::packed_put) return answer_packed_put(store, group, map, request);
    if (kind == ServerRequest::begin_save) return answer_begin_save(store, map, request);
    if (kind == ServerRequest::finish_save) return answer_finish_save(store, request);
    if (kind == ServerRequest::save_version) return answer_save_version(store, map, request);
    if (kind == ServerRequest::stats) return MessageWriter().value(store.store().stats(group)).take();
    TESSERA_ASSIGN_OR_RETURN(uint64_t sum, store.digest(group, request.value<int64_t>(), map));
    return MessageWriter().value(sum).take();
  };
}

std::unique_ptr<recsys_train::EmbeddingServers> make_remote_servers(const Meeting& meeting, int64_t num_servers,
                                                                    const recsys_train::WireConfig& wire,
                                                                    const std::vector<int64_t>& dims) {
  return std::make_unique<RemoteServers>(meeting, num_servers, wire, dims);
}

}  // namespace tessera::recsys_roles
