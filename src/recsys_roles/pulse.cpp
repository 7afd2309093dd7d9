#include "recsys_roles/pulse.h"

#include "resilience/protocol.h"

namespace tessera::recsys_roles {
namespace {

constexpr double kBeat_s = 0.1;

}  // namespace

Pulse::Pulse(std::shared_ptr<Store> store, int64_t process, bool leads)
    : store_(std::move(store)), process_(process), leads_(leads), thread_([this] { beat(); }) {}

Pulse::~Pulse() {
  stop_ = true;
  thread_.join();
}

// A supervisor that is gone takes its roles with it, so a beat that fails needs no further action.
void Pulse::beat() {
  for (int64_t count = 1; !stop_; ++count) {
    resilience::Beat beat{.count = count, .step = steps_done_, .operation = ""};
    (void)store_->set(resilience::key::beat(process_), resilience::encode(beat));
    if (leads_) (void)store_->set(resilience::key::steps, std::to_string(steps_done_));
    std::this_thread::sleep_for(std::chrono::duration<double>(kBeat_s));
  }
}

}  // namespace tessera::recsys_roles
