// The loader in a process of its own: reads the data once for all embedding workers. It keeps no state that
// matters: a batch is a function of its key, so whoever takes the place of a dead loader gives the same ones.
#pragma once

#include "recsys_roles/link.h"
#include "recsys_train/loader.h"

namespace tessera::recsys_roles {

// What the loader knows about the data, for all roles, in the launcher's store.
Status publish_facts(Store& store, const recsys_train::DataFacts& facts);
Result<recsys_train::DataFacts> await_facts(Store& store, Deadline deadline);

// Answers for `loader`, which must outlive the door.
Door::Handler serve_loader(recsys_train::BatchLoader& loader);
std::unique_ptr<recsys_train::BatchLoader> make_remote_loader(const Meeting& meeting, const std::string& role);

}  // namespace tessera::recsys_roles
