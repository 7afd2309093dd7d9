#include "recsys_roles/server_map.h"

#include <sstream>

namespace tessera::recsys_roles {
namespace {

constexpr const char* kMove = "recsys-move";
constexpr double kWord_s = 30;  // for who claimed the word to say it

std::string claims_key(uint64_t number) {
  return fmt::format("{}/{}/claims", kMove, number);
}
std::string word_key(uint64_t number) {
  return fmt::format("{}/{}/word", kMove, number);
}

// The last move; number 0: there was none.
Result<Move> last_move(Store& store, int64_t configured) {
  Move move{.from = {.servers = configured}, .to = configured};
  TESSERA_ASSIGN_OR_RETURN(auto text, store.try_get(kMove));
  if (!text) return move;
  std::istringstream words(*text);
  words >> move.number >> move.from.number >> move.from.servers >> move.to;
  if (words.fail()) return make_error(ErrorCode::data_loss, "{} is '{}' in the job's store", kMove, *text);
  return move;
}

}  // namespace

Result<ServerMap> read_map(Store& store, int64_t configured) {
  TESSERA_ASSIGN_OR_RETURN(Move move, last_move(store, configured));
  if (move.number == 0) return move.from;
  TESSERA_ASSIGN_OR_RETURN(auto word, store.try_get(word_key(move.number)));
  if (word && *word == "done") return ServerMap{move.number, move.to};
  return move.from;
}

Result<Move> announce_move(Store& store, int64_t configured, int64_t to) {
  TESSERA_ASSIGN_OR_RETURN(Move last, last_move(store, configured));
  TESSERA_ASSIGN_OR_RETURN(ServerMap now, read_map(store, configured));
  Move move{.number = last.number + 1, .from = now, .to = to};
  TESSERA_RETURN_IF_ERROR(
      store.set(kMove, fmt::format("{} {} {} {}", move.number, now.number, now.servers, to)));
  return move;
}

Result<bool> settle_move(Store& store, uint64_t number, bool done) {
  TESSERA_ASSIGN_OR_RETURN(int64_t claims, store.add(claims_key(number), 1));
  if (claims == 1) {
    TESSERA_RETURN_IF_ERROR(store.set(word_key(number), done ? "done" : "broken"));
    return done;
  }
  TESSERA_ASSIGN_OR_RETURN(std::string word, store.get(word_key(number), Deadline::after(kWord_s)));
  return word == "done";
}

Status break_move(Store& store) {
  TESSERA_ASSIGN_OR_RETURN(Move last, last_move(store, 1));
  if (last.number == 0) return {};
  auto done = settle_move(store, last.number, false);
  return done ? Status() : Status(done.error());
}

}  // namespace tessera::recsys_roles
