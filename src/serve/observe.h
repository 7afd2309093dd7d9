// What can be seen of a running server: Prometheus text, the live page and its figures, a trace of the last
// requests. Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/model_directory.h"

namespace tessera::serve {

class Observe {
 public:
  explicit Observe(const ModelDirectory& models) : models_(models) {}

  // /metrics   /live   /live/data   /debug/trace?seconds=S&model=NAME
  static bool serves(const std::string& path);
  HttpResponse answer(const HttpRequest& request) const;

 private:
  std::string metrics() const;
  std::string live_data() const;
  HttpResponse trace(const HttpRequest& request) const;

  const ModelDirectory& models_;
};

// A text that is compiled in, by its file name.
std::string_view resource(std::string_view name);

}  // namespace tessera::serve
