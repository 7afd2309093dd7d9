// Embedding servers in processes of their own, named server:0, server:1, ... Gets may be repeated, and puts are
// numbered, so a call to a server that died is made again to the process that took its place (link.h).
#pragma once

#include "recsys_roles/link.h"
#include "recsys_train/servers.h"

namespace tessera::recsys_roles {

std::string server_role(int64_t number);  // "server:1"

// Answers for `store`, which must outlive the door.
Door::Handler serve_store(recsys_train::ServedStore& store);
// Packs its messages where `wire` is on. `dims`: of each group.
std::unique_ptr<recsys_train::EmbeddingServers> make_remote_servers(const Meeting& meeting, int64_t num_servers,
                                                                    const recsys_train::WireConfig& wire,
                                                                    const std::vector<int64_t>& dims);

}  // namespace tessera::recsys_roles
