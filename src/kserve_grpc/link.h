// Between a call of gRPC and what answers it on another thread. The reactor lives until it has been finished,
// and gRPC allows that once only; what comes after the end does nothing. Threads: any.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace tessera::kserve {

template <class Reactor>
class Link {
 public:
  explicit Link(Reactor* reactor) : reactor_(reactor) {}

  void finish(const grpc::Status& status) {
    Reactor* reactor = nullptr;
    {
      std::lock_guard lock(mutex_);
      reactor = std::exchange(reactor_, nullptr);
    }
    if (reactor) reactor->Finish(status);
  }
  // With what `work` says, unless the call is over: its messages live no longer than it does, and until then
  // `work` may write them.
  template <class Work>
  void finish_with(Work work) {
    Reactor* reactor = nullptr;
    grpc::Status status;
    {
      std::lock_guard lock(mutex_);
      if (!reactor_) return;
      status = work();
      reactor = std::exchange(reactor_, nullptr);
    }
    reactor->Finish(status);
  }
  template <class Use>
  void use(Use use) {
    std::lock_guard lock(mutex_);
    if (reactor_) use(*reactor_);
  }

 private:
  std::mutex mutex_;
  Reactor* reactor_;
};

inline grpc::Status shutting_down() {
  return {grpc::StatusCode::UNAVAILABLE, "the server is shutting down"};
}

// A call with one request and one response.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  using Handle = std::shared_ptr<Link<grpc::ServerUnaryReactor>>;
  Handle handle() const { return link_; }
  // Called when the client has left, or the server stops.
  void on_cancel(std::function<void()> cancel) { cancel_ = std::move(cancel); }

 private:
  void OnCancel() override {
    if (cancel_) cancel_();
    Handle link = link_;  // the reactor may be gone before finish() returns
    link->finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

  Handle link_ = std::make_shared<Link<grpc::ServerUnaryReactor>>(this);
  std::function<void()> cancel_;
};

}  // namespace tessera::kserve
