#include "recsys_roles/replica.h"

#include "core/log.h"
#include "recsys_roles/copy_file.h"
#include "recsys_roles/remote_loader.h"
#include "recsys_roles/remote_servers.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::ServedStore;

constexpr double kHear_s = 0.5;  // between two looks whether the replica is to end

enum class ChainRequest : uint8_t { begin_copy, read_copy, end_copy };

std::string replica_role(int64_t number) {
  return RoleName{RoleName::replica, number}.text();
}
// Below the keys of the server: who erases those takes this door away too.
std::string chain_role(int64_t number) {
  return server_role(number) + "/chain";
}

// Counts up when a replica takes the server's place.
Result<int64_t> term_of(Store& store, int64_t number) {
  return store.add(fmt::format("recsys-term/{}", number), 0);
}

// ---- the server's end ----

class ServerChain : public Chain {
 public:
  ServerChain(const Meeting& meeting, int64_t number, ServedStore& store)
      : store_(store), replica_(meeting, replica_role(number)) {}

  Status begin(const Meeting& meeting, int64_t number) {
    TESSERA_ASSIGN_OR_RETURN(term_, term_of(*meeting.store, number));
    store_.forward_to(
        [this](int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
               const recsys::PutOptions& options) { return hand_over(group, ids, gradients, options); });
    TESSERA_ASSIGN_OR_RETURN(door_, Door::open(meeting, chain_role(number),
                                               [this](MessageReader& request) { return answer(request); }));
    return {};
  }

 private:
  Status hand_over(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
                   const recsys::PutOptions& options) {
    MessageWriter message;
    message.value(term_).value(group).value(options).array(ids).array(gradients);
    auto answer = replica_.call(message.take());
    if (!answer && answer.error().code == ErrorCode::aborted) end_term(answer.error());
    return answer ? Status() : Status(answer.error().within(replica_.role()));
  }

  // Senders must find the server's new door, and no answer of this one.
  static void end_term(const Error& error) {
    log(LogLevel::error, "this server is one no more: {}", error.message);
    std::_Exit(1);
  }

  Result<Message> answer(MessageReader& request) {
    auto kind = request.value<ChainRequest>();
    auto offset = request.value<uint64_t>();
    TESSERA_RETURN_IF_ERROR(request.end());
    std::lock_guard lock(mutex_);
    if (kind == ChainRequest::begin_copy) return begin_copy();
    if (kind == ChainRequest::read_copy) return read_copy(offset);
    file_.reset();
    return Message();
  }

  Result<Message> begin_copy() {
    file_ = std::make_unique<CopyFile>();
    std::vector<uint64_t> applied;
    TESSERA_RETURN_IF_ERROR(store_.copy_to(file_->path(), applied));
    TESSERA_ASSIGN_OR_RETURN(const uint64_t bytes, bytes_of_file(file_->path()));
    return MessageWriter().value(bytes).array(applied).take();
  }

  Result<Message> read_copy(uint64_t offset) {
    if (!file_) return make_error(ErrorCode::not_found, "no copy of the rows was begun");
    return read_piece(file_->path(), offset);
  }

  ServedStore& store_;
  Caller replica_;
  int64_t term_ = 0;
  std::mutex mutex_;
  std::unique_ptr<CopyFile> file_;
  std::unique_ptr<Door> door_;  // last: closed before what it serves
};

// ---- the replica's end ----

// What the server holds between two puts.
Status take_copy(Caller& server, ServedStore& store) {
  TESSERA_ASSIGN_OR_RETURN(
      Message begun, server.call(MessageWriter().value(ChainRequest::begin_copy).value(uint64_t{0}).take()));
  MessageReader reader(begun);
  const auto bytes = reader.value<uint64_t>();
  const auto applied = reader.array<uint64_t>();
  TESSERA_RETURN_IF_ERROR(reader.end());
  CopyFile copy;
  auto piece = [](uint64_t offset) {
    return MessageWriter().value(ChainRequest::read_copy).value(offset).take();
  };
  TESSERA_RETURN_IF_ERROR(fetch_file(server, piece, bytes, copy.path()));
  TESSERA_RETURN_IF_ERROR(store.adopt(copy.path(), applied));
  // Should this fail, the server's file goes with the next copy.
  (void)server.call(MessageWriter().value(ChainRequest::end_copy).value(uint64_t{0}).take()).ok();
  return {};
}

class ReplicaRole : public ServingRole {
 public:
  ReplicaRole(const Place& place, int64_t number) : place_(place), number_(number) {}
  ~ReplicaRole() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

  Status begin(const recsys_train::RunConfig& run) {
    TESSERA_ASSIGN_OR_RETURN(auto facts,
                             await_facts(*place_.meeting.store, Deadline::after(place_.meeting.patience_s)));
    TESSERA_ASSIGN_OR_RETURN(term_, term_of(*place_.meeting.store, number_));
    TESSERA_ASSIGN_OR_RETURN(auto plan, recsys_train::plan_embeddings(run, facts.features));
    TESSERA_ASSIGN_OR_RETURN(
        auto store, recsys::Store::create({.groups = plan.store_groups, .memory_files = place_.memory}));
    store_ = std::make_unique<ServedStore>(std::move(store), serving_options(run));
    if (!store_->has_adopted()) {
      Caller server(place_.meeting, chain_role(number_));
      TESSERA_RETURN_IF_ERROR(take_copy(server, *store_));
    }
    TESSERA_ASSIGN_OR_RETURN(door_, Door::open(place_.meeting, replica_role(number_),
                                               [this](MessageReader& request) { return take_put(request); }));
    thread_ = std::thread([this] { await_promotion(); });
    return {};
  }

 private:
  // Rows come into being at a get, and the server's gets are not told to the replica.
  Result<Message> take_put(MessageReader& request) {
    const auto term = request.value<int64_t>(), group = request.value<int64_t>();
    const auto options = request.value<recsys::PutOptions>();
    const auto ids = request.array<uint64_t>();
    const auto gradients = request.array<float>();
    TESSERA_RETURN_IF_ERROR(request.end());
    if (promoted_ || term < term_) return make_error(ErrorCode::aborted, "it has taken the server's place");
    if (group < 0 || group >= store_->store().num_groups() ||
        gradients.size() != ids.size() * static_cast<size_t>(store_->store().group(group).dim))
      return make_error(ErrorCode::data_loss, "{} values for the gradients of {} ids in group {}",
                        gradients.size(), ids.size(), group);
    std::vector<float> rows(gradients.size());
    TESSERA_RETURN_IF_ERROR(store_->get(group, ids, rows, {}));
    TESSERA_RETURN_IF_ERROR(store_->put(group, ids, gradients, options));
    return Message();
  }

  void await_promotion() {
    while (!stop_) {
      auto word = place_.meeting.store->get(place_.promotion, Deadline::after(kHear_s));
      if (!word && word.error().code == ErrorCode::deadline_exceeded) continue;
      if (!word) return log(LogLevel::warn, "it will not hear that it is needed: {}", word.error().message);
      Status status = promote();
      if (!status.ok())
        log(LogLevel::error, "cannot take the place of {}: {}", server_role(number_), status.error().message);
      return;
    }
  }

  // The old door stays: a put that waits there for its turn will get it from this server's senders.
  Status promote() {
    promoted_ = true;
    set_log_name(server_role(number_));
    TESSERA_ASSIGN_OR_RETURN(chain_, Chain::open(place_.meeting, number_, *store_));
    TESSERA_ASSIGN_OR_RETURN(server_door_,
                             Door::open(place_.meeting, server_role(number_), serve_store(*store_)));
    return {};
  }

  const Place place_;
  const int64_t number_;
  int64_t term_ = 0;
  std::unique_ptr<ServedStore> store_;
  std::unique_ptr<Chain> chain_;
  std::unique_ptr<Door> door_, server_door_;
  std::atomic<bool> promoted_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace

Status begin_term(Store& store, int64_t number) {
  auto term = store.add(fmt::format("recsys-term/{}", number), 1);
  return term ? Status() : Status(term.error());
}

Result<std::unique_ptr<Chain>> Chain::open(const Meeting& meeting, int64_t number, ServedStore& store) {
  auto chain = std::make_unique<ServerChain>(meeting, number, store);
  TESSERA_RETURN_IF_ERROR(chain->begin(meeting, number));
  return std::unique_ptr<Chain>(std::move(chain));
}

Result<std::unique_ptr<ServingRole>> open_replica(const recsys_train::RunConfig& run, int64_t number,
                                                  const Place& place) {
  auto role = std::make_unique<ReplicaRole>(place, number);
  TESSERA_RETURN_IF_ERROR(role->begin(run));
  return std::unique_ptr<ServingRole>(std::move(role));
}

}  // namespace tessera::recsys_roles
