// The models of one server by name: which are loaded, and how they come and go while requests run.
//
// Every model has a thread of its own that loads it, waits until it shall go, and destroys it: what the model
// owns (such as processes that end with the thread that started them) never changes threads. A model that goes
// takes no new requests, lets those under way end, at most for a time, and then cancels the rest.
//
// Threads: the HTTP server's, but for the loaders.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "http/server.h"
#include "serve/hosted_model.h"

namespace tessera::serve {

class ModelDirectory {
 public:
  // Runs on the model's thread; may take as long as it likes. `name`: what clients call it.
  using Loader = std::function<Result<std::unique_ptr<HostedModel>>()>;
  using Done = std::function<void(Status)>;
  enum class State { unavailable, loading, ready, unloading };
  struct Entry {
    std::string name;
    State state = State::unavailable;
    std::string reason;    // why it is unavailable
    HostedModelPtr model;  // when ready
    bool wanted = false;   // it shall be ready: what is not is a fault
  };

  // `drain_s`: for requests of a model that goes.
  ModelDirectory(HttpServer& server, double drain_s) : server_(server), drain_s_(drain_s) {}
  // Ends all engines. REQUIRES: the server does not run any more.
  ~ModelDirectory();

  void add(const std::string& name, Loader loader);  // known, not loaded
  // `done` comes on the server's thread. Errors: not_found; unavailable while it is loading or going; those of
  // the loader.
  void load(const std::string& name, Done done);
  void unload(const std::string& name, Done done);
  // Its engine cannot go on: it is unloaded, with this reason.
  void fail(const std::string& name, const Error& error);

  // Errors: not_found names those that there are; unavailable for one that is not ready.
  Result<HostedModelPtr> find(const std::string& name) const;
  std::vector<Entry> entries() const;  // in the order of add()
  bool all_tried() const;              // nothing is loading for the first time

 private:
  struct Slot {
    Entry entry;
    Loader loader;
    bool tried = false;
    std::thread thread;
    std::mutex mutex;
    std::condition_variable changed;
    bool leave = false, at_once = false;  // under mutex
  };
  void run(Slot& slot, const Done& loaded);
  void wait_for_requests(Slot& slot, const HostedModelPtr& model) const;
  Result<Slot*> slot_of(const std::string& name) const;
  static void tell_to_leave(Slot& slot, bool at_once);
  void on_loaded(Slot& slot, Result<HostedModelPtr> model, const Done& done);

  HttpServer& server_;
  double drain_s_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::map<std::string, std::vector<Done>> leaving_;  // who waits for the end of which model
};

const char* to_string(ModelDirectory::State state);  // as KServe names it: "READY", ...

}  // namespace tessera::serve
