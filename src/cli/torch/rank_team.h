// The processes of a tensor-parallel server. Rank 0 is the command that the user started; it starts the others
// as the same command with its place in the environment, and they end with it, whatever happens.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/tcp_store.h"

namespace tessera::cli {

// Where a started rank belongs, from its environment.
struct RankPlace {
  int64_t rank = 0, size = 1;
  int store_port = 0;
  std::string token;
  int64_t kv_tokens = 0;  // of the cache, which all ranks must agree on
};
std::optional<RankPlace> rank_place();  // nullopt in the command that the user started

class RankTeam {
 public:
  // Starts ranks 1 .. size - 1 and meets them.
  static Result<std::unique_ptr<RankTeam>> start(int64_t size, int64_t kv_tokens);
  ~RankTeam();  // waits for the others for a while, then kills them
  Group& group() { return *group_; }

 private:
  RankTeam() = default;
  Status spawn(const RankPlace& place);

  std::unique_ptr<StoreServer> store_;
  std::unique_ptr<Group> group_;
  std::vector<pid_t> children_;
};

// The group of a started rank. Also makes it end when rank 0 does.
Result<std::unique_ptr<Group>> join_team(const RankPlace& place);

}  // namespace tessera::cli
