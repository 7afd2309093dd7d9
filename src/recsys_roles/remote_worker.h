// The embedding worker in a process of its own: a dense trainer sends keys of batches and gradients of pooled
// rows, and gets numbers and pooled rows. What a worker remembers is disposable (recsys_train/worker.h).
#pragma once

#include "recsys_roles/link.h"
#include "recsys_train/worker.h"

namespace tessera::recsys_roles {

// Answers for `worker`, which must outlive the door.
Door::Handler serve_worker(recsys_train::EmbeddingWorker& worker);
std::unique_ptr<recsys_train::EmbeddingWorker> make_remote_worker(const Meeting& meeting,
                                                                  const std::string& role);

}  // namespace tessera::recsys_roles
