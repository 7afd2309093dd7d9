#include <map>
#include <mutex>

#include "recsys_roles/copy_file.h"
#include "recsys_roles/move_request.h"
#include "recsys_roles/mover.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::ServedStore;

class ServerMoveEnd : public MoveEnd {
 public:
  ServerMoveEnd(const Meeting& meeting, int64_t number, ServedStore& store)
      : meeting_(meeting), number_(number), store_(store) {}

  Status begin() {
    TESSERA_ASSIGN_OR_RETURN(door_, Door::open(meeting_, move_role(number_),
                                               [this](MessageReader& request) { return answer(request); }));
    return {};
  }

 private:
  Result<Message> answer(MessageReader& request) {
    const auto kind = request.value<MoveRequest>();
    if (kind == MoveRequest::copy) return copy(request);
    if (kind == MoveRequest::read) return read(request);
    if (kind == MoveRequest::fetch) return fetch(request);
    if (kind == MoveRequest::take_seat) return take_seat(request);
    const auto step = request.value<int64_t>();
    TESSERA_RETURN_IF_ERROR(request.end());
    if (kind == MoveRequest::latest) return MessageWriter().value(store_.latest()).take();
    if (kind == MoveRequest::stand_still) return MessageWriter().value(store_.stand_still(step)).take();
    Status status;
    if (kind == MoveRequest::hold) status = store_.hold_at(step);
    if (kind == MoveRequest::release) store_.release();
    if (kind == MoveRequest::begin_at) status = store_.begin_at(step);
    if (kind == MoveRequest::clean) status = clean();
    TESSERA_RETURN_IF_ERROR(status);
    return Message();
  }

  // Rows that leave, by who gets them: all of them in the first round, then what changed.
  Result<Message> copy(MessageReader& request) {
    const auto order = request.value<CopyOrder>();
    TESSERA_RETURN_IF_ERROR(request.end());
    std::lock_guard lock(giving_);
    if (order.round == 0) forget();
    if (order.round > 0 && order.move != given_)
      return make_error(ErrorCode::aborted, "this process knows nothing of the move");
    given_ = order.move;
    std::vector<std::string> paths;
    files_.clear();
    for (int64_t target = order.first_target; target < order.end_target; ++target)
      paths.push_back(files_.emplace_back(std::make_unique<CopyFile>())->path());
    const recsys::SlotMap& owners = recsys::slot_map(static_cast<uint32_t>(order.to));
    auto part_of = [&](uint64_t id) {
      const int64_t owner = owners.server_of(id);
      const bool leaves = owner >= order.first_target && owner < order.end_target;
      return leaves ? static_cast<size_t>(owner - order.first_target) : paths.size();
    };
    using Kind = recsys::Store::SnapshotKind;
    TESSERA_ASSIGN_OR_RETURN(
        auto info, store_.store().save_parts(paths, part_of, order.round == 0 ? Kind::full : Kind::delta));
    std::vector<uint64_t> bytes;
    for (const std::string& path : paths) {
      TESSERA_ASSIGN_OR_RETURN(bytes.emplace_back(), bytes_of_file(path));
    }
    return MessageWriter().value(info.rows + info.removed).array(bytes).take();
  }

  Result<Message> read(MessageReader& request) {
    const auto order = request.value<ReadOrder>();
    TESSERA_RETURN_IF_ERROR(request.end());
    std::lock_guard lock(giving_);
    if (order.move != given_ || order.part >= files_.size())
      return make_error(ErrorCode::aborted, "this process knows nothing of the move");
    return read_piece(files_[order.part]->path(), order.offset);
  }

  Result<Message> fetch(MessageReader& request) {
    const auto order = request.value<FetchOrder>();
    TESSERA_RETURN_IF_ERROR(request.end());
    std::lock_guard lock(taking_);
    if (order.round == 0) heads_[order.source] = {order.move, {}};
    auto& [move, head] = heads_[order.source];
    if (move != order.move) return make_error(ErrorCode::aborted, "this process knows nothing of the move");
    Caller source(meeting_, move_role(order.source));
    CopyFile copy;
    TESSERA_RETURN_IF_ERROR(fetch_file(
        source,
        [&](uint64_t offset) {
          ReadOrder piece{.move = order.move, .part = order.part, .offset = offset};
          return MessageWriter().value(MoveRequest::read).value(piece).take();
        },
        order.bytes, copy.path()));
    TESSERA_RETURN_IF_ERROR(store_.store().apply(copy.path(), head));
    return Message();
  }

  Result<Message> take_seat(MessageReader& request) {
    const auto seat = request.value<recsys_train::ServerSeat>();
    TESSERA_RETURN_IF_ERROR(request.end());
    store_.take_seat(seat);
    return Message();
  }

  Status clean() {
    std::lock_guard lock(giving_);
    forget();
    return store_.clean();
  }

  // REQUIRES: giving_ is held.
  void forget() {
    given_ = 0;
    files_.clear();
    store_.store().forget(recsys::SnapshotChain::moves);
  }

  const Meeting meeting_;
  const int64_t number_;
  ServedStore& store_;
  std::mutex giving_;  // what follows
  uint64_t given_ = 0;
  std::vector<std::unique_ptr<CopyFile>> files_;  // of the last round
  std::mutex taking_;                             // what follows
  std::map<int64_t, std::pair<uint64_t, recsys::SnapshotHead>>
      heads_;                   // of each source: the move, the last file
  std::unique_ptr<Door> door_;  // last: closed before what it serves
};

}  // namespace

Result<std::unique_ptr<MoveEnd>> MoveEnd::open(const Meeting& meeting, int64_t number, ServedStore& store) {
  auto end = std::make_unique<ServerMoveEnd>(meeting, number, store);
  TESSERA_RETURN_IF_ERROR(end->begin());
  return std::unique_ptr<MoveEnd>(std::move(end));
}

}  // namespace tessera::recsys_roles
