// Everything that a server of models answers over HTTP, by path: OpenAI's interface, KServe's, probes, figures.
// Threads: the server's.
#pragma once

#include "kserve/rest.h"
#include "serve/kserve_backend.h"
#include "serve/observe.h"
#include "serve/openai_api.h"
#include "serve/probes.h"

namespace tessera::serve {

struct FrontOptions {
  double stuck_s = 300;  // a step that takes longer is taken for dead
  std::string version;   // of the program
};

class Front {
 public:
  // Both must outlive it; run() of the server must have returned before it is destroyed.
  Front(ModelDirectory& models, HttpServer& server, const FrontOptions& options)
      : readers_(server),
        openai_(models, server, readers_),
        observe_(models),
        probes_(models, server, options.stuck_s),
        kserve_(models, server, readers_, probes_),
        rest_(kserve_, options.version,
              [this](auto read, auto then) { read_apart(std::move(read), std::move(then)); }) {}

  void handle(std::shared_ptr<HttpExchange> exchange);
  kserve::Backend& backend() { return kserve_; }

 private:
  void read_apart(std::function<void()> read, std::function<void()> then);

  BodyReaders readers_;
  OpenAiApi openai_;
  Observe observe_;
  Probes probes_;
  KServeBackend kserve_;
  kserve::Rest rest_;
};

}  // namespace tessera::serve
