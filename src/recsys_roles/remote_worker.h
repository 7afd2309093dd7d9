// The embedding worker in a process of its own: a dense trainer sends keys of batches and gradients of pooled
// rows, and gets numbers and pooled rows. What a worker remembers is disposable (recsys_train/worker.h).
#pragma once

#include "recsys_roles/link.h"
#include "recsys_train/worker.h"

namespace tessera::recsys_roles {

// Answers for `worker`, which must outlive the door.
Door::Handler serve_worker(recsys_train::EmbeddingWorker& worker);
// All workers of a run as one: a batch is with worker (its number) % num_workers. `pooled`: how pooled rows and
// their gradients travel.
std::unique_ptr<recsys_train::EmbeddingWorker> make_remote_workers(
    const Meeting& meeting, int64_t num_workers, recsys::RowType pooled = recsys::RowType::f32);

}  // namespace tessera::recsys_roles
