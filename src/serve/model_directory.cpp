#include "serve/model_directory.h"

#include "core/log.h"

namespace tessera::serve {

const char* to_string(ModelDirectory::State state) {
  switch (state) {
    case ModelDirectory::State::unavailable:
      return "UNAVAILABLE";
    case ModelDirectory::State::loading:
      return "LOADING";
    case ModelDirectory::State::ready:
      return "READY";
    case ModelDirectory::State::unloading:
      return "UNLOADING";
  }
  return "?";
}

ModelDirectory::~ModelDirectory() {
  for (const auto& slot : slots_) tell_to_leave(*slot, true);
  for (const auto& slot : slots_)
    if (slot->thread.joinable()) slot->thread.join();
}

void ModelDirectory::tell_to_leave(Slot& slot, bool at_once) {
  std::lock_guard lock(slot.mutex);
  slot.leave = true;
  slot.at_once |= at_once;
  slot.changed.notify_all();
}

void ModelDirectory::add(const std::string& name, Loader loader) {
  slots_.push_back(std::make_unique<Slot>());
  slots_.back()->entry = {.name = name, .reason = "not loaded"};
  slots_.back()->loader = std::move(loader);
}

Result<ModelDirectory::Slot*> ModelDirectory::slot_of(const std::string& name) const {
  std::string known;
  for (const auto& slot : slots_) {
    if (slot->entry.name == name) return slot.get();
    known += fmt::format("{}'{}'", known.empty() ? "" : ", ", slot->entry.name);
  }
  return make_error(ErrorCode::not_found, "the model '{}' does not exist; this server has {}", name, known);
}

Result<HostedModelPtr> ModelDirectory::find(const std::string& name) const {
  TESSERA_ASSIGN_OR_RETURN(Slot * slot, slot_of(name));
  const Entry& entry = slot->entry;
  if (entry.state == State::ready) return entry.model;
  bool loading = entry.state == State::loading;
  return make_error(ErrorCode::unavailable, "the model '{}' {}", name,
                    loading ? "is loading" : fmt::format("is not loaded: {}", entry.reason));
}

std::vector<ModelDirectory::Entry> ModelDirectory::entries() const {
  std::vector<Entry> out;
  for (const auto& slot : slots_) out.push_back(slot->entry);
  return out;
}

bool ModelDirectory::all_tried() const {
  for (const auto& slot : slots_)
    if (slot->entry.wanted && !slot->tried) return false;
  return true;
}

void ModelDirectory::load(const std::string& name, Done done) {
  auto found = slot_of(name);
  if (!found) return done(found.error());
  Slot& slot = **found;
  if (slot.entry.state == State::ready) return done({});
  if (slot.entry.state != State::unavailable)
    return done(make_error(ErrorCode::unavailable, "the model '{}' is {}; try again later", name,
                           slot.entry.state == State::loading ? "loading already" : "going"));
  if (slot.thread.joinable()) slot.thread.join();  // it has told of its end
  slot.entry.state = State::loading;
  slot.entry.wanted = true;
  slot.leave = false;
  slot.thread = std::thread([this, &slot, done = std::move(done)] { run(slot, done); });
}

// The life of a model.
void ModelDirectory::run(Slot& slot, const Done& done) {
  auto loaded = slot.loader();
  if (!loaded) {
    server_.post([this, &slot, done, error = loaded.error()] { on_loaded(slot, error, done); });
    return;
  }
  HostedModelPtr model = std::move(*loaded);
  server_.post([this, &slot, done, model] { on_loaded(slot, model, done); });
  wait_for_requests(slot, model);
  // Who still holds the model has stopped with the server and never asks its engine again.
  model->engine.reset();
  model->base.reset();
  model.reset();
  server_.post([this, &slot] {
    slot.entry.state = State::unavailable;
    for (const Done& waits : std::exchange(leaving_[slot.entry.name], {})) waits({});
  });
}

void ModelDirectory::on_loaded(Slot& slot, Result<HostedModelPtr> model, const Done& done) {
  slot.tried = true;
  slot.entry.state = model ? State::ready : State::unavailable;
  if (model)
    slot.entry.model = *model;
  else
    slot.entry.reason = model.error().message;
  done(model ? Status() : Status(model.error()));
}

void ModelDirectory::wait_for_requests(Slot& slot, const HostedModelPtr& model) const {
  constexpr auto kLook = std::chrono::milliseconds(10);
  std::unique_lock lock(slot.mutex);
  slot.changed.wait(lock, [&] { return slot.leave; });
  Deadline deadline = Deadline::after(drain_s_);
  bool cancelled = false;
  while (model.use_count() > 1 && !slot.at_once) {
    if (deadline.passed() && !std::exchange(cancelled, true)) model->engine->cancel_all();
    slot.changed.wait_for(lock, kLook);
  }
}

void ModelDirectory::unload(const std::string& name, Done done) {
  auto found = slot_of(name);
  if (!found) return done(found.error());
  Slot& slot = **found;
  slot.entry.wanted = false;
  if (slot.entry.state == State::unavailable) return done({});
  if (slot.entry.state == State::loading)
    return done(make_error(ErrorCode::unavailable, "the model '{}' is loading; try again later", name));
  leaving_[name].push_back(std::move(done));
  if (slot.entry.state == State::unloading) return;
  slot.entry.state = State::unloading;
  slot.entry.reason = "unloaded";
  slot.entry.model = nullptr;
  tell_to_leave(slot, false);
}

void ModelDirectory::fail(const std::string& name, const Error& error) {
  auto found = slot_of(name);
  if (!found) return;
  unload(name, [](const Status&) {});
  (*found)->entry.reason = error.message;
  (*found)->entry.wanted = true;
}

}  // namespace tessera::serve
