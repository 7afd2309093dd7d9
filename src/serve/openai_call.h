// One call of a client under way: the choices of all its prompts, streamed or collected, and its end when the
// client leaves. It is kept alive by the exchange until it has answered. Threads: the server's.
#pragma once

#include "http/server.h"
#include "serve/hosted_model.h"
#include "serve/openai_request.h"

namespace tessera::serve {

void respond(HttpExchange& exchange, const ApiError& error);
// With Retry-After, from the predicted wait, where coming back makes sense.
void respond(HttpExchange& exchange, const Engine& engine, ApiError error);

// The call holds the model until it has ended.
void start_call(HostedModelPtr model, HttpServer& server, std::shared_ptr<HttpExchange> exchange,
                CompletionCall call);

}  // namespace tessera::serve
