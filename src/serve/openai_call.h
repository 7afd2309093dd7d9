// One call of a client under way: the choices of all its prompts, streamed or collected, and its end when the
// client leaves. It is kept alive by the exchange until it has answered. Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/engine.h"
#include "serve/openai_request.h"

namespace tessera::serve {

// With Retry-After, from the predicted wait, where coming back makes sense.
void respond(HttpExchange& exchange, const Engine& engine, const ApiError& error);

void start_call(Engine& engine, HttpServer& server, std::shared_ptr<HttpExchange> exchange, CompletionCall call,
                const std::string& model);

}  // namespace tessera::serve
