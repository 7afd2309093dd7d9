#include "serve/front.h"

#include "http/error_body.h"

namespace tessera::serve {

void Front::read_apart(std::function<void()> read, std::function<void()> then) {
  auto all = [read = std::move(read)] {
    read();
    return true;
  };
  readers_.run(all, [then = std::move(then)](bool) { then(); });
}

void Front::handle(std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  const std::string& path = request.path;
  if (OpenAiApi::serves(path)) return openai_.handle(std::move(exchange));
  if (kserve::Rest::serves(path)) return rest_.handle(std::move(exchange));
  if (Probes::serves(path)) return exchange->respond(probes_.answer(request));
  if (Observe::serves(path)) return exchange->respond(observe_.answer(request));
  exchange->respond(error_response({.status = 404, .message = fmt::format("there is no {}", path)}, request));
}

}  // namespace tessera::serve
