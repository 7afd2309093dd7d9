#include "recsys_roles/mover.h"

#include <algorithm>
#include <thread>

#include "core/clock.h"
#include "core/log.h"
#include "core/progress.h"
#include "recsys_roles/move_request.h"

namespace tessera::recsys_roles {
namespace {

using recsys_train::ServerSeat;
using Stand = recsys_train::ServedStore::Stand;

constexpr double kDoor_s = 120;          // for new servers to open their doors
constexpr double kHold_s = 120;          // for training to come to the step of the hand-over
constexpr double kSave_s = 60;           // for a checkpoint to end
constexpr double kStand_look_s = 0.002;  // between two looks whether all stand still
constexpr double kAgain_s = 0.2;         // before something is tried again
constexpr int64_t kMostRounds = 8;       // of copying, before the hand-over takes the rest
constexpr int64_t kFewRows = 2000;       // that may be left for the hand-over
constexpr int64_t kFirstLead = 8;        // steps between the last put and the hand-over
constexpr int64_t kLongestLead = 1 << 20;

void wait(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// One try.
class Mover {
 public:
  Mover(const MoverOptions& options, Move move) : options_(options), move_(move) {
    for (int64_t server = 0; server < move.most(); ++server)
      servers_.push_back(std::make_unique<Caller>(options.meeting, move_role(server)));
    result_.move = move;
  }

  Result<MoveResult> run() {
    Status status = copy_and_hand_over();
    if (status.ok()) return result_;
    auto done = settle_move(*options_.meeting.store, move_.number, false);
    if (done && *done)
      return take_seats().ok() ? Result<MoveResult>(result_) : Result<MoveResult>(status.error());
    for (int64_t server = 0; server < move_.most(); ++server) {
      (void)call(server, MoveRequest::release).ok();
      (void)call(server, MoveRequest::clean).ok();
    }
    return status.error();
  }

 private:
  bool grows() const { return move_.to > move_.from.servers; }
  int64_t first_source() const { return grows() ? 0 : move_.to; }
  int64_t end_source() const { return move_.from.servers; }
  int64_t first_target() const { return grows() ? move_.from.servers : 0; }
  int64_t end_target() const { return move_.to; }

  Status copy_and_hand_over() {
    TESSERA_RETURN_IF_ERROR(await_doors());
    TESSERA_RETURN_IF_ERROR(copy_until_little_is_left());
    TESSERA_RETURN_IF_ERROR(stand_still());
    TESSERA_RETURN_IF_ERROR(
        say(MovePhase::hand_over, fmt::format("all servers stand still at step {}", step_)));
    TESSERA_RETURN_IF_ERROR(copy().ok() ? Status() : copy_error_);
    if (grows())
      for (int64_t server = first_target(); server < end_target(); ++server)
        TESSERA_RETURN_IF_ERROR(call(server, MoveRequest::begin_at, step_));
    TESSERA_ASSIGN_OR_RETURN(bool done, settle_move(*options_.meeting.store, move_.number, true));
    if (!done) return make_error(ErrorCode::aborted, "a server was replaced meanwhile");
    return take_seats();
  }

  Status say(MovePhase phase, const std::string& detail) {
    if (options_.on_progress) options_.on_progress(phase, detail);
    return check();
  }

  // Whether there is still something to move.
  Status check() const {
    if (options_.stopped && options_.stopped()) return make_error(ErrorCode::aborted, "the job has ended");
    TESSERA_ASSIGN_OR_RETURN(auto word,
                             options_.meeting.store->try_get(fmt::format("recsys-move/{}/word", move_.number)));
    if (word) return make_error(ErrorCode::aborted, "a server was replaced meanwhile");
    return {};
  }

  Result<Message> ask(int64_t server, MoveRequest kind, int64_t step = 0) {
    return servers_[static_cast<size_t>(server)]->call(MessageWriter().value(kind).value(step).take());
  }
  Status call(int64_t server, MoveRequest kind, int64_t step = 0) {
    auto answer = ask(server, kind, step);
    return answer ? Status() : Status(answer.error().within(server_role(server)));
  }
  template <class T>
  Result<T> value(int64_t server, MoveRequest kind, int64_t step = 0) {
    TESSERA_ASSIGN_OR_RETURN(Message answer, ask(server, kind, step));
    MessageReader reader(answer);
    T out = reader.value<T>();
    TESSERA_RETURN_IF_ERROR(reader.end());
    return out;
  }

  Status await_doors() {
    const Deadline deadline = Deadline::after(kDoor_s);
    for (int64_t server = 0; server < move_.most(); ++server)
      while (
          !options_.meeting.store->get(keys_of(move_role(server)) + "door", Deadline::after(kAgain_s)).ok()) {
        TESSERA_RETURN_IF_ERROR(check());
        if (deadline.passed())
          return make_error(ErrorCode::unavailable, "{} has not come up within {:.0f} s", server_role(server),
                            kDoor_s);
      }
    return {};
  }

  // ---- copies ----

  Status copy_until_little_is_left() {
    int64_t before = INT64_MAX;
    for (;;) {
      TESSERA_RETURN_IF_ERROR(say(MovePhase::copy, round_ == 0 ? "copies rows" : "copies rows that changed"));
      TESSERA_ASSIGN_OR_RETURN(int64_t rows, copy());
      if (rows <= std::max(kFewRows, first_rows_ / 50) || round_ >= kMostRounds || rows > before / 10 * 9)
        return {};
      before = rows;
    }
  }

  // One round: what left each source, to each target. Returns the rows.
  Result<int64_t> copy() {
    auto rows = copy_round();
    if (!rows) copy_error_ = rows.error();
    ++round_;
    return rows;
  }

  Result<int64_t> copy_round() {
    std::vector<Caller::Pending> pending;
    for (int64_t source = first_source(); source < end_source(); ++source) {
      CopyOrder order{.move = move_.number,
                      .round = round_,
                      .to = move_.to,
                      .first_target = first_target(),
                      .end_target = end_target()};
      pending.push_back(server(source).start(MessageWriter().value(MoveRequest::copy).value(order).take()));
    }
    int64_t rows = 0;
    std::vector<std::vector<uint64_t>> bytes(pending.size());
    Status first;
    for (size_t i = 0; i < pending.size(); ++i) {
      auto answer = server(first_source() + static_cast<int64_t>(i)).finish(std::move(pending[i]));
      if (!answer) {
        first = answer.error().within(server_role(first_source() + static_cast<int64_t>(i)));
        continue;
      }
      MessageReader reader(*answer);
      rows += reader.value<int64_t>();
      bytes[i] = reader.array<uint64_t>();
      if (Status status = reader.end(); !status.ok()) first = status;
    }
    TESSERA_RETURN_IF_ERROR(first);
    for (size_t i = 0; i < bytes.size(); ++i)
      TESSERA_RETURN_IF_ERROR(hand_out(first_source() + static_cast<int64_t>(i), bytes[i]));
    if (round_ == 0) first_rows_ = rows;
    result_.rows += rows;
    return rows;
  }

  // To all targets at once.
  Status hand_out(int64_t source, const std::vector<uint64_t>& bytes) {
    if (bytes.size() != static_cast<size_t>(end_target() - first_target()))
      return make_error(ErrorCode::data_loss, "{} files of {} for {} servers", bytes.size(),
                        server_role(source), end_target() - first_target());
    std::vector<Caller::Pending> pending;
    for (size_t part = 0; part < bytes.size(); ++part) {
      FetchOrder order{
          .move = move_.number, .round = round_, .source = source, .part = part, .bytes = bytes[part]};
      result_.bytes += static_cast<int64_t>(bytes[part]);
      pending.push_back(server(first_target() + static_cast<int64_t>(part))
                            .start(MessageWriter().value(MoveRequest::fetch).value(order).take()));
    }
    Status first;
    for (size_t part = 0; part < bytes.size(); ++part) {
      const int64_t target = first_target() + static_cast<int64_t>(part);
      auto answer = server(target).finish(std::move(pending[part]));
      if (!answer && first.ok()) first = answer.error().within(server_role(target));
    }
    return first;
  }

  // ---- the step of the hand-over ----

  // All servers of the old map hold the puts of all steps before step_, and no other.
  Status stand_still() {
    int64_t lead = kFirstLead;
    const Deadline saves = Deadline::after(kSave_s);
    for (;;) {
      TESSERA_ASSIGN_OR_RETURN(bool held, hold(lead));
      if (held) {
        TESSERA_RETURN_IF_ERROR(
            say(MovePhase::hold, fmt::format("{} rows copied; hands over at step {}", result_.rows, step_)));
        TESSERA_ASSIGN_OR_RETURN(Stand stand, await_stand());
        if (stand == Stand::still) return {};
        if (saves.passed())
          return make_error(ErrorCode::unavailable, "a checkpoint has been under way for {:.0f} s", kSave_s);
      } else if ((lead *= 2) > kLongestLead) {
        return make_error(ErrorCode::unavailable, "puts come faster than servers can be told to hold them");
      }
      release();
      if (held) wait(kAgain_s);
      TESSERA_RETURN_IF_ERROR(check());
    }
  }

  // Whether every server was told in time.
  Result<bool> hold(int64_t lead) {
    uint64_t latest = 0;
    for (int64_t server = 0; server < move_.from.servers; ++server) {
      TESSERA_ASSIGN_OR_RETURN(uint64_t its, value<uint64_t>(server, MoveRequest::latest));
      latest = std::max(latest, its);
    }
    step_ = static_cast<int64_t>(latest) + lead;
    for (int64_t server = 0; server < move_.from.servers; ++server) {
      Status status = call(server, MoveRequest::hold, step_);
      if (status.ok()) continue;
      if (status.error().code == ErrorCode::aborted) return false;
      return status.error();
    }
    return true;
  }

  Result<Stand> await_stand() {
    const Deadline deadline = Deadline::after(kHold_s);
    std::vector<bool> stands(static_cast<size_t>(move_.from.servers), false);
    for (bool first = true; std::count(stands.begin(), stands.end(), false) > 0;) {
      for (int64_t server = 0; server < move_.from.servers; ++server) {
        if (stands[static_cast<size_t>(server)]) continue;
        TESSERA_ASSIGN_OR_RETURN(Stand stand, value<Stand>(server, MoveRequest::stand_still, step_));
        if (stand == Stand::saving) return stand;
        stands[static_cast<size_t>(server)] = stand == Stand::still;
        if (stand != Stand::still || !first) continue;
        first = false;
        result_.step = step_;
        still_since_ = Clock::now();
      }
      if (deadline.passed())
        return make_error(ErrorCode::deadline_exceeded, "step {} was not reached within {:.0f} s", step_,
                          kHold_s);
      TESSERA_RETURN_IF_ERROR(check());
      wait(kStand_look_s);
    }
    return Stand::still;
  }

  void release() {
    for (int64_t server = 0; server < move_.from.servers; ++server)
      (void)call(server, MoveRequest::release).ok();
  }

  // The new map is in force. A server that dies now finds it when it comes back.
  Status take_seats() {
    Status first;
    for (int64_t i = move_.most() - 1; i >= 0; --i) {
      ServerSeat seat{.server = i, .servers = move_.to, .map = move_.number};
      auto answer = server(i).call(MessageWriter().value(MoveRequest::take_seat).value(seat).take());
      if (!answer && first.ok()) first = answer.error().within(server_role(i));
    }
    result_.hand_over_s = seconds_since(still_since_);
    TESSERA_RETURN_IF_ERROR(first);
    for (int64_t i = 0; i < move_.to; ++i) TESSERA_RETURN_IF_ERROR(call(i, MoveRequest::clean));
    return {};
  }

  Caller& server(int64_t number) { return *servers_[static_cast<size_t>(number)]; }

  const MoverOptions& options_;
  const Move move_;
  std::vector<std::unique_ptr<Caller>> servers_;
  int64_t round_ = 0, first_rows_ = 0, step_ = 0;
  Status copy_error_;
  Clock::time_point still_since_ = Clock::now();
  MoveResult result_;
};

}  // namespace

const char* to_string(MovePhase phase) {
  constexpr const char* kNames[] = {"copy", "hold", "hand-over"};
  return kNames[static_cast<size_t>(phase)];
}

Result<MoveResult> move_rows(const MoverOptions& options) {
  const auto start = Clock::now();
  for (int tries = 1;; ++tries) {
    TESSERA_ASSIGN_OR_RETURN(Move move, announce_move(*options.meeting.store, options.configured, options.to));
    if (move.from.servers == options.to) {
      TESSERA_ASSIGN_OR_RETURN([[maybe_unused]] bool done,
                               settle_move(*options.meeting.store, move.number, false));
      return MoveResult{.move = move};
    }
    auto result = Mover(options, move).run();
    if (result) result->total_s = seconds_since(start);
    if (result || tries >= options.tries || (options.stopped && options.stopped())) return result;
    if (options.on_progress)
      options.on_progress(MovePhase::copy, fmt::format("begins again: {}", result.error().message));
  }
}

}  // namespace tessera::recsys_roles
