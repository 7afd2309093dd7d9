// Embedding servers in other processes: the messages between an embedding worker and a server, over a Group of
// two (rank 0 asks, rank 1 answers). Each pair has one link for reading and one for updates, so that a look-up
// never waits behind an update, and a worker asks all servers before it waits for the first.
//
// A request is a header of 40 bytes (operation, access, group, count of ids, step, factor of the rate), then
// the ids as uint64, then gradients as float32; an answer is a header of 16 bytes (error code or -1, bytes that
// follow), then rows, or the text of the error. Numbers are those of the hosts, which must agree in byte order.
#pragma once

#include <memory>
#include <vector>

#include "comm/group.h"
#include "recsys_train/servers.h"

namespace tessera::recsys_train {

// The links of a worker to one server.
struct ServerLinks {
  std::unique_ptr<Group> read, update;
};

// `groups`: the store groups, for their dimensions. Says goodbye to the servers when it is destroyed.
// Errors of calls: those of the server's store, and of the link, with the number of the server.
std::unique_ptr<EmbeddingServers> make_remote_servers(std::vector<ServerLinks> links,
                                                      const std::vector<recsys::GroupOptions>& groups);

// Answers one link until the other side says goodbye (success) or the link fails. One thread for each link.
Status serve_rows(Group& link, recsys::Store& store);

}  // namespace tessera::recsys_train
