// One inference of KServe's protocol under way in an engine. Threads: the server's.
#pragma once

#include "http/server.h"
#include "kserve/backend.h"
#include "serve/body_readers.h"
#include "serve/hosted_model.h"

namespace tessera::serve {

// Answers through `sink`; the call holds the model until it has ended. Returns what cancels it, which does not
// hold the call.
std::function<void()> start_kserve_call(HostedModelPtr model, HttpServer& server, BodyReaders& readers,
                                        kserve::InferRequest request, bool stream,
                                        std::shared_ptr<kserve::InferSink> sink);

}  // namespace tessera::serve
