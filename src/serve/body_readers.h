// Templates, tokenizers and schemas can take long: a few threads read bodies beside the server's, so that a
// heavy one holds up nobody's stream. Threads: the server's.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "http/server.h"

namespace tessera::serve {

class BodyReaders {
 public:
  // The server must outlive it.
  explicit BodyReaders(HttpServer& server);
  ~BodyReaders();  // waits for bodies under way

  // Runs `read` on another thread and `then` with its result on the server's.
  template <class Read, class Then>
  void run(Read read, Then then) {
    post([&server = server_, read = std::move(read), then = std::move(then)] {
      auto result = std::make_shared<decltype(read())>(read());
      server.post([result, then] { then(std::move(*result)); });
    });
  }

 private:
  struct Pool;
  void post(std::function<void()> work);

  HttpServer& server_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace tessera::serve
