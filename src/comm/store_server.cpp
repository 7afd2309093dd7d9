#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <list>
#include <thread>

#include "comm/key_values.h"
#include "comm/socket.h"
#include "comm/store_protocol.h"
#include "comm/tcp_store.h"
#include "core/log.h"

namespace tessera {
namespace {

using namespace comm;

constexpr double kPatience_s = 10;  // for a stranger to say hello
constexpr size_t kMostClients = 16384;

// One connection: at most one request at a time is under way on it.
struct Client {
  Descriptor socket;
  std::string in, out;
  size_t out_done = 0;  // bytes of `out` that are sent
  bool trusted = false, gone = false;
  std::optional<StoreRequest> waiting;  // a get whose key is not there yet
  Deadline patience;                    // of the hello, then of the get
};

class Server : public StoreServer {
 public:
  Server(Descriptor listener, int port, std::shared_ptr<Descriptor> wake, std::string token)
      : listener_(std::move(listener)), wake_(std::move(wake)), port_(port), token_(std::move(token)) {
    // The table may outlive this object in the hands of others, so it shares the descriptor.
    values_->on_change([shared = wake_] { ::eventfd_write(shared->number(), 1); });
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() override {
    stop_ = true;
    ::eventfd_write(wake_->number(), 1);
    thread_.join();
  }
  int port() const override { return port_; }
  std::shared_ptr<Store> store() override { return values_; }

 private:
  void serve();
  void wait();
  double seconds_to_next_deadline() const;
  void let_in();
  void attend(Client& client);
  void read(Client& client);
  void answer_requests(Client& client);
  std::optional<Result<std::string>> perform(Client& client, const StoreRequest& request);
  Result<std::string> greet(Client& client, const StoreRequest& request);
  void finish_get(Client& client);
  void write(Client& client);

  Descriptor listener_;
  std::shared_ptr<Descriptor> wake_;
  int port_;
  std::string token_;
  std::shared_ptr<KeyValues> values_ = std::make_shared<KeyValues>();
  std::list<Client> clients_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void Server::serve() {
  while (!stop_) {
    wait();
    let_in();
    for (Client& client : clients_) attend(client);
    clients_.remove_if([](const Client& client) { return client.gone; });
  }
}

double Server::seconds_to_next_deadline() const {
  double seconds = 60;
  for (const Client& client : clients_) {
    if (client.waiting || !client.trusted) seconds = std::min(seconds, client.patience.seconds_left());
  }
  return std::max(seconds, 0.0);
}

void Server::wait() {
  bool room = clients_.size() < kMostClients;
  std::vector<pollfd> entries = {{wake_->number(), POLLIN, 0}, {room ? listener_.number() : -1, POLLIN, 0}};
  for (const Client& client : clients_) {
    entries.push_back(
        {client.socket.number(), static_cast<short>(client.out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
  }
  ::poll(entries.data(), entries.size(), static_cast<int>(seconds_to_next_deadline() * 1e3) + 1);
  eventfd_t count = 0;
  ::eventfd_read(wake_->number(), &count);
}

void Server::let_in() {
  while (clients_.size() < kMostClients) {
    std::optional<Descriptor> socket = accept_one(listener_);
    if (!socket) return;
    Client& client = clients_.emplace_back();
    client.socket = std::move(*socket);
    client.patience = Deadline::after(kPatience_s);
  }
}

void Server::attend(Client& client) {
  read(client);
  if (client.waiting) finish_get(client);
  if (!client.waiting) answer_requests(client);
  write(client);
  if (!client.trusted && client.patience.passed()) client.gone = true;
}

void Server::read(Client& client) {
  std::array<std::byte, 65536> piece;
  size_t limit = client.trusted ? kLongestFrame + sizeof(uint32_t) : kLongestHello;
  while (client.in.size() < limit) {
    auto count = receive_some(client.socket, piece);
    if (!count) client.gone = true;
    if (!count || *count == 0) return;
    client.in.append(reinterpret_cast<const char*>(piece.data()), *count);
  }
}

void Server::answer_requests(Client& client) {
  while (!client.waiting && !client.gone) {
    auto body = take_frame(client.in, client.trusted ? kLongestFrame : kLongestHello);
    auto request = body && *body ? decode_request(**body) : Result<StoreRequest>(invalid("no request"));
    if (body && !*body) return;
    if (!request) {
      log(LogLevel::warn, "store: dropped a connection that sent no request of this protocol");
      client.gone = true;
      return;
    }
    auto answer = perform(client, *request);
    if (answer) client.out += frame(encode_answer(*answer));
  }
}

// The answer, or nothing for a get that has to wait.
std::optional<Result<std::string>> Server::perform(Client& client, const StoreRequest& request) {
  if (!client.trusted) return greet(client, request);
  auto number = [](Result<int64_t> result) {
    return result ? Result<std::string>(encode_number(*result)) : Result<std::string>(result.error());
  };
  auto argument = decode_number(request.argument);
  switch (request.call) {
    case StoreCall::hello:
      return Result<std::string>("");
    case StoreCall::set:
      values_->set(request.key, request.argument).ok();
      return Result<std::string>("");
    case StoreCall::add:
      return argument ? number(values_->add(request.key, *argument)) : Result<std::string>(argument.error());
    case StoreCall::erase_prefix:
      return number(values_->erase_prefix(request.key));
    case StoreCall::try_get: {
      auto value = values_->try_get(request.key);
      return Result<std::string>(*value ? std::string(1, '\1') + **value : std::string(1, '\0'));
    }
    case StoreCall::get:
      if (!argument) return Result<std::string>(argument.error());
      client.waiting = request;
      client.patience =
          Deadline::after(static_cast<double>(std::clamp<int64_t>(*argument, 0, 1000000000)) * 1e-3);
      finish_get(client);
      return std::nullopt;
  }
  return Result<std::string>(invalid("store: unknown call"));
}

Result<std::string> Server::greet(Client& client, const StoreRequest& request) {
  client.trusted = request.call == StoreCall::hello && same_token(request.key, token_);
  if (client.trusted) return std::string();
  client.patience = Deadline::after(0);  // hears the answer, then has to go
  log(LogLevel::warn, "store: refused a connection with a wrong token");
  return invalid("the store does not accept this token; every process of a job must have the job's token");
}

void Server::finish_get(Client& client) {
  auto value = values_->try_get(client.waiting->key);
  if (*value) {
    client.out += frame(encode_answer(**value));
  } else if (client.patience.passed()) {
    Error late =
        make_error(ErrorCode::deadline_exceeded, "nobody has set key '{}' in time", client.waiting->key);
    client.out += frame(encode_answer(late));
  } else {
    return;
  }
  client.waiting.reset();
}

void Server::write(Client& client) {
  while (client.out_done < client.out.size() && !client.gone) {
    std::string_view rest = std::string_view(client.out).substr(client.out_done);
    ssize_t count = ::send(client.socket.number(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (count < 0) client.gone = true;
    if (count > 0) client.out_done += static_cast<size_t>(count);
  }
  client.out.clear();
  client.out_done = 0;
}

}  // namespace

Result<std::unique_ptr<StoreServer>> StoreServer::start(const std::string& address, int port,
                                                        std::string token) {
  if (token.empty() || token.size() > 4096) {
    return invalid("store: the job token has {} bytes, expected 1 to 4096", token.size());
  }
  auto listener = listen_tcp(address, port);
  if (!listener) return listener.error().within("store");
  TESSERA_ASSIGN_OR_RETURN(int bound, local_port(*listener));
  auto wake = std::make_shared<Descriptor>(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake->valid())
    return make_error(ErrorCode::resource_exhausted, "store: no descriptor left for an eventfd");
  return std::unique_ptr<StoreServer>(
      std::make_unique<Server>(std::move(*listener), bound, std::move(wake), std::move(token)));
}

}  // namespace tessera
