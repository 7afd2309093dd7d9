// What one rank of a layout holds of a served model, and with whom it computes.
//
// Axes in serving: tp cuts every layer; pp gives each stage a run of layers; dp (or fsdp, which means the same
// here: weights are not gathered) makes replicas that attend to different requests; ep spreads the experts over
// `ep` consecutive replicas, which then take their steps together.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/group.h"
#include "layout/layout.h"

namespace tessera::serve {

struct ServePlace {
  int64_t rank = 0;               // of all
  int64_t tp = 1, tp_rank = 0;    // of those that share its layers
  int64_t stage = 0, stages = 1;  // of the pipeline
  int64_t replica = 0, replicas = 1;
  LayerRange layers;
  int64_t first_expert = 0, last_expert = 0;
  int64_t previous = -1, next = -1;      // ranks of the neighbouring stages
  std::vector<int64_t> logits_ranks{0};  // of each replica: tp rank 0 of its last stage

  bool first_stage() const { return stage == 0; }
  bool last_stage() const { return stage + 1 == stages; }
  bool gives_logits() const { return last_stage() && tp_rank == 0; }
};
ServePlace place_of(const ModelSpec& spec, const Layout& layout, int64_t rank);

// Errors: an axis that serving does not use, a degree that does not divide.
Status check_layout(const ModelSpec& spec, const Layout& layout);

// The groups of one rank. They must outlive what computes with them.
struct RankGroups {
  Group* world = nullptr;    // everyone; rank 0 decides
  Group* tp = nullptr;       // who shares its layers; null: nobody
  Group* experts = nullptr;  // among whom the experts are spread; null: they are all here
};

// The same with their owner.
class OwnedGroups {
 public:
  // `join` makes the group of these ranks; all of them call it in the same order.
  using Join =
      std::function<Result<std::unique_ptr<Group>>(const std::string& name, std::vector<int64_t> members)>;
  static Result<OwnedGroups> make(const Layout& layout, int64_t rank, const Join& join);

  RankGroups view() const;
  void abort(const Error& error);  // any thread

 private:
  std::unique_ptr<Group> world_, tp_, experts_;
  bool tp_is_world_ = false;
};

}  // namespace tessera::serve
