// Embedding servers in processes of their own, named server:0, server:1, ... Gets may be repeated, and puts are
// numbered, so a call to a server that died is made again to the process that took its place (link.h).
#pragma once

#include "recsys_roles/link.h"
#include "recsys_train/servers.h"

namespace tessera::recsys_roles {

std::string server_role(int64_t number);  // "server:1"

// Answers for `store`, which must outlive the door.
Door::Handler serve_store(recsys_train::ServedStore& store);
std::unique_ptr<recsys_train::EmbeddingServers> make_remote_servers(const Meeting& meeting,
                                                                    int64_t num_servers);

}  // namespace tessera::recsys_roles
