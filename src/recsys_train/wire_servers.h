// The wire (wire_end.h) within one process, where the packed messages go nowhere: it shows what they cost in
// quality and how many bytes they take. Between processes: recsys_roles/remote_servers.h.
#pragma once

#include <memory>

#include "recsys_train/servers.h"

namespace tessera::recsys_train {

// `servers` must outlive it. `dims`: of each group.
std::unique_ptr<EmbeddingServers> make_wire_servers(EmbeddingServers& servers, const WireConfig& config,
                                                    const std::vector<int64_t>& dims);

}  // namespace tessera::recsys_train
