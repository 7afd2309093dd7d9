// The ranks that run one model together, as rank 0 sees them: whether all are well, and how they come together
// again after one was lost. A loss ends the groups of that time; meet() makes others, in which every rank
// has its weights and no rank has the keys and values from before.
// Threads: loss() and give_up() from any; the others one at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "serve/place.h"

namespace tessera::serve {

class Team {
 public:
  virtual ~Team() = default;

  // Of the ranks that met last.
  virtual RankGroups groups() = 0;
  // Brings all ranks together under new groups(), lost ones replaced. Blocks until they have loaded.
  // Errors: a rank that does not come back; aborted after give_up().
  virtual Status meet() = 0;
  virtual void give_up() = 0;  // a meet() under way, and later ones, end soon

  // Why groups() cannot be used any more; none while all are well.
  virtual std::optional<Error> loss() const = 0;
  // Called after every loss, on a thread of the team. Nothing calls it after another one was set.
  virtual void on_loss(std::function<void()> callback) = 0;
  virtual int64_t num_losses() const = 0;  // so far
};

// One process: nobody can be lost.
std::unique_ptr<Team> make_single_team();

}  // namespace tessera::serve
