#include "serve/body_readers.h"

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace tessera::serve {

namespace {

constexpr size_t kReaders = 2;

}  // namespace

struct BodyReaders::Pool {
  boost::asio::thread_pool threads{kReaders};
};

BodyReaders::BodyReaders(HttpServer& server) : server_(server), pool_(std::make_unique<Pool>()) {}

BodyReaders::~BodyReaders() {
  pool_->threads.join();
}

void BodyReaders::post(std::function<void()> work) {
  boost::asio::post(pool_->threads, std::move(work));
}

}  // namespace tessera::serve
