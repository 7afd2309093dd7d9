// The processes of a server. Rank 0 is the command that the user started; it starts the others as the same
// command with its place in the environment, and they end with it, whatever happens.
//
// A rank that ends, or gives no sign of life for a while, is killed and started again at once; those that live
// keep their weights. All meet under a new generation number when rank 0 calls for one. What they tell each
// other through rank 0's store:
//   serve/generation  number of the meeting that rank 0 calls for; "end" when the server ends
//   serve/loaded/R    rank R has its weights
//   serve/ready/G/R   rank R has seen the call for generation G and holds no older group
//   serve/go          generation whose ranks are all ready: they join its group now
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "comm/tcp_store.h"
#include "resilience/crew.h"
#include "serve/team.h"

namespace tessera::cli {

// Where a started rank belongs, from its environment.
struct RankPlace {
  int64_t rank = 0;
  Layout layout;
  int store_port = 0;
  std::string token;
  int64_t kv_tokens = 0;  // of the cache, which all ranks must agree on
  std::string role;       // empty: a part of the model; or "prefill"
  int64_t after = 0;      // it joins later generations only
};
std::optional<RankPlace> rank_place();  // nullopt in the command that the user started

class RankTeam : public serve::Team {
 public:
  struct Options {
    Layout layout;
    int64_t kv_tokens = 0;
    std::string role;        // what the other ranks are for; empty: parts of one model
    double silence_s = 0.8;  // without a sign of life a rank is taken as lost
  };
  // Starts all other ranks, which load meanwhile; meet() waits for them.
  static Result<std::unique_ptr<serve::Team>> start(const Options& options);
  ~RankTeam() override;  // waits for the others for a while, then kills them

  serve::RankGroups groups() override { return groups_ ? groups_->view() : serve::RankGroups(); }
  Status meet() override;
  void give_up() override { given_up_ = true; }
  std::optional<Error> loss() const override;
  void on_loss(std::function<void()> callback) override;
  int64_t num_losses() const override { return num_losses_; }

 private:
  explicit RankTeam(const Options& options);
  int64_t size() const { return options_.layout.processes(); }
  void supervise();
  void look_after_members();
  void replace_ended();
  void spawn(int64_t rank);
  void lose(int64_t rank, const std::string& why);
  int64_t call_generation();
  Status await_ready(int64_t generation);
  bool everybody_ready(int64_t generation, double waited_s);
  Status join(int64_t generation);

  Options options_;
  std::string token_;
  std::unique_ptr<StoreServer> store_server_;
  std::shared_ptr<Store> store_;
  resilience::Crew crew_;  // of the supervising thread
  std::atomic<bool> ending_ = false, given_up_ = false;
  std::atomic<int64_t> num_losses_ = 0;

  mutable std::mutex mutex_;
  int64_t generation_ = 0;
  std::optional<serve::OwnedGroups>
      groups_;  // replaced by the thread that calls meet(), aborted by the supervising one
  std::optional<Error> loss_;
  std::map<int64_t, int64_t>
      lost_in_;              // generation in which a rank was lost last: its successor joins later ones
  std::set<int64_t> stuck_;  // ranks to be killed

  std::mutex callback_mutex_;
  std::function<void()> callback_;
  std::thread supervisor_;
};

}  // namespace tessera::cli
