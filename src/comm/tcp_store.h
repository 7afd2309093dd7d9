// The job's key-value store over TCP. The launcher owns the server, so that the store outlives every worker;
// workers and launchers of other hosts connect. Both ends must know the job's token. Waits happen in the
// server: a client that waits for a key costs nothing until the key is there.
#pragma once

#include <memory>
#include <string>

#include "comm/group.h"

namespace tessera {

class StoreServer {
 public:
  // Binds to an address (a number or a host name); port 0 takes any free one. The server runs on its own thread
  // until it is destroyed; clients then get `unavailable`.
  static Result<std::unique_ptr<StoreServer>> start(const std::string& address, int port, std::string token);
  virtual ~StoreServer() = default;
  virtual int port() const = 0;
  // The same keys without the network, for the process that owns the server. Any thread.
  virtual std::shared_ptr<Store> store() = 0;
};

// Threads: any; calls of several threads run side by side, each on its own connection. Calls without a deadline
// of their own give up after 30 s.
Result<std::shared_ptr<Store>> connect_store(const std::string& host, int port, const std::string& token,
                                             Deadline deadline);

}  // namespace tessera
