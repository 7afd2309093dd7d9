#include "resilience/liaison.h"

#include <cstdlib>

#include "comm/tcp_store.h"

namespace tessera::resilience {
namespace {

constexpr double kConnect = 20;       // seconds
constexpr double kLauncherGone = 30;  // seconds without an answer of the store

Result<std::shared_ptr<Store>> connect_to(const WorkerContext& context) {
  size_t colon = context.store.rfind(':');
  if (colon == std::string::npos) return invalid("TESSERA_STORE must be host:port, got '{}'", context.store);
  return connect_store(context.store.substr(0, colon), std::atoi(context.store.c_str() + colon + 1),
                       context.token, Deadline::after(kConnect));
}

}  // namespace

Result<std::unique_ptr<Liaison>> Liaison::connect(const WorkerContext& context) {
  TESSERA_ASSIGN_OR_RETURN(auto mine, connect_to(context));
  TESSERA_ASSIGN_OR_RETURN(auto threads, connect_to(context));
  return std::unique_ptr<Liaison>(
      new Liaison(std::move(mine), std::move(threads), context.worker, context.first_order));
}

Liaison::Liaison(std::shared_ptr<Store> mine, std::shared_ptr<Store> threads, int64_t worker,
                 int64_t first_order)
    : store_(std::move(mine)),
      thread_store_(std::move(threads)),
      worker_(worker),
      next_order_(first_order),
      thread_([this] { follow(); }) {}

Liaison::~Liaison() {
  leaving_ = true;
  thread_.join();
}

void Liaison::attend(int64_t generation, Callbacks callbacks) {
  std::scoped_lock lock(callbacks_mutex_, mutex_);
  attended_ = generation;
  callbacks_ = std::move(callbacks);
  if (!settled(generation)) return;
  callbacks_.interrupt(failure_.value_or(make_error(ErrorCode::aborted, "{}", called_.reason)));
}

void Liaison::ignore() {
  std::lock_guard lock(callbacks_mutex_);
  callbacks_ = {};
}

Result<Liaison::Call> Liaison::wait_call(int64_t after, Deadline deadline) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, deadline.at, [&] { return settled(after); }))
    return make_error(ErrorCode::deadline_exceeded, "the launcher has called no new generation");
  if (called_.generation > after) return called_;
  if (failure_) return *failure_;
  if (ended_->empty()) return Call{};
  return make_error(ErrorCode::aborted, "the job has ended: {}", *ended_);
}

Result<std::optional<Plan>> Liaison::wait_plan(int64_t generation) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return settled(generation) || (plan_ && plan_->generation == generation); });
  if (called_.generation > generation) return std::optional<Plan>();
  if (plan_ && plan_->generation == generation) return plan_;
  if (failure_) return *failure_;
  return make_error(ErrorCode::aborted, "the job has ended: {}", *ended_);
}

// Waits on the server for the next order; each wait is cut short for a sign of life.
void Liaison::follow() {
  auto answered = Clock::now();
  while (!leaving_) {
    beat();
    auto text = thread_store_->get(key::order(next_order_), Deadline::after(kBeatInterval));
    if (!text && text.error().code == ErrorCode::deadline_exceeded) {
      answered = Clock::now();
      continue;
    }
    if (!text && seconds_since(answered) < kLauncherGone && text.error().code != ErrorCode::unavailable)
      continue;
    if (!text) return lose(text.error());
    answered = Clock::now();
    ++next_order_;
    auto order = decode_order(*text);
    if (!order) return lose(order.error());
    if (!obey(*order)) return;
  }
}

bool Liaison::obey(const Order& order) {
  {
    std::lock_guard lock(mutex_);
    if (order.kind == Order::call) called_ = {order.generation, order.text};
    if (order.kind == Order::plan) plan_ = order.formed;
    if (order.kind == Order::end) ended_ = order.text;
  }
  if (order.kind == Order::stop) stop_wanted_ = true;
  changed_.notify_all();
  bool interrupts = order.kind == Order::call || (order.kind == Order::end && !order.text.empty());
  if (interrupts) {
    std::lock_guard lock(callbacks_mutex_);
    bool newer = order.kind == Order::end || order.generation > attended_;
    if (newer && callbacks_.interrupt) callbacks_.interrupt(make_error(ErrorCode::aborted, "{}", order.text));
  }
  return order.kind != Order::end;
}

void Liaison::beat() {
  Beat beat{.count = ++beats_, .step = steps_done_, .operation = ""};
  {
    std::lock_guard lock(callbacks_mutex_);
    if (callbacks_.operation) beat.operation = callbacks_.operation();
  }
  (void)thread_store_->set(key::beat(worker_), encode(beat));  // a failure shows in the next wait
}

void Liaison::lose(const Error& error) {
  Error gone = make_error(ErrorCode::unavailable, "the launcher is gone: {}", error.message);
  {
    std::lock_guard lock(mutex_);
    failure_ = gone;
  }
  changed_.notify_all();
  std::lock_guard lock(callbacks_mutex_);
  if (callbacks_.interrupt) callbacks_.interrupt(gone);
}

}  // namespace tessera::resilience
