// A second copy of the rows of an embedding server, on another host, for the day when a host goes with its
// memory. It is a chain of two: the server applies a put, hands it to replica:N and answers its sender when the
// replica has it too. So whatever a sender was told lies on two hosts. Puts carry (sender, sequence) all the
// way: one that a lost host had not answered comes again, and each of the two applies it once.
//
// A replica that begins with empty memory asks the server for a copy of all rows as they stand between two
// puts; training goes on while the copy is written and sent, and waits from the next put until the replica has
// it. A replica that is told so (Place::promotion) becomes server:N, in the next term of that server. Who gives
// up a host counts the term; a server of an earlier one, which was only cut off for a while, is refused and
// ends.
//
// Two puts of one group that are under way at once, by two trainers without `train.mode=sync` or
// `train.deterministic`, may reach the replica in the other order: sums of rounded numbers then differ in their
// last bits.
#pragma once

#include <memory>

#include "recsys_roles/role.h"

namespace tessera::recsys_roles {

// The server's end. The store must outlive it.
class Chain {
 public:
  // Puts of the store are handed to replica:`number` from now on, and a replica may ask for a copy.
  static Result<std::unique_ptr<Chain>> open(const Meeting& meeting, int64_t number,
                                             recsys_train::ServedStore& store);
  virtual ~Chain() = default;
};

// Begins the next term of a server: to be called before its replica is told.
Status begin_term(Store& store, int64_t number);

// replica:N. Returns when it holds what the server holds.
Result<std::unique_ptr<ServingRole>> open_replica(const recsys_train::RunConfig& run, int64_t number,
                                                  const Place& place);

}  // namespace tessera::recsys_roles
