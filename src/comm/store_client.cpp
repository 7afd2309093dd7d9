#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "comm/socket.h"
#include "comm/store_protocol.h"
#include "comm/tcp_store.h"

namespace tessera {
namespace {

using namespace comm;

constexpr double kCall_s = 30;
constexpr double kGrace_s = 0.5;  // for the server's own "not in time" to arrive

class StoreClient : public Store {
 public:
  StoreClient(std::string host, int port, std::string token)
      : host_(std::move(host)), port_(port), token_(std::move(token)) {}

  // Makes the first connection, so that a wrong address or token is known at once.
  Status connect(Deadline deadline);

  Status set(const std::string& key, const std::string& value) override;
  Result<std::string> get(const std::string& key, Deadline deadline) override;
  Result<int64_t> add(const std::string& key, int64_t amount) override;
  Result<std::optional<std::string>> try_get(const std::string& key) override;
  Result<int64_t> erase_prefix(const std::string& prefix) override;

 private:
  Result<Descriptor> open(Deadline deadline) const;
  Result<Descriptor> take_connection(Deadline deadline);
  Result<std::string> ask(const Descriptor& socket, const StoreRequest& request, Deadline deadline) const;
  Result<std::string> call(const StoreRequest& request, Deadline deadline);
  Result<int64_t> call_for_number(const StoreRequest& request);
  Error within(const Error& error) const { return error.within(fmt::format("store at {}:{}", host_, port_)); }

  std::string host_;
  int port_;
  std::string token_;
  std::mutex mutex_;
  std::vector<Descriptor> idle_;
};

// One request and its answer. A transport error and an error of the server look alike to the caller, but the
// connection is only kept after an answer: see call().
Result<std::string> StoreClient::ask(const Descriptor& socket, const StoreRequest& request,
                                     Deadline deadline) const {
  std::string message = frame(encode(request)), buffer;
  if (message.size() > kLongestFrame) return invalid("a value of {} bytes is too big", request.argument.size());
  TESSERA_RETURN_IF_ERROR(send_all(socket, std::as_bytes(std::span(message)), deadline));
  uint32_t bytes = 0;
  TESSERA_RETURN_IF_ERROR(receive_all(socket, std::as_writable_bytes(std::span(&bytes, 1)), deadline));
  if (bytes > kLongestFrame) return make_error(ErrorCode::data_loss, "an answer of {} bytes", bytes);
  buffer.resize(bytes);
  TESSERA_RETURN_IF_ERROR(receive_all(socket, std::as_writable_bytes(std::span(buffer)), deadline));
  return buffer;
}

Result<Descriptor> StoreClient::open(Deadline deadline) const {
  TESSERA_ASSIGN_OR_RETURN(Descriptor socket, connect_tcp(host_, port_, deadline));
  TESSERA_ASSIGN_OR_RETURN(std::string answer, ask(socket, {StoreCall::hello, token_, ""}, deadline));
  auto welcome = decode_answer(answer);
  if (!welcome) return welcome.error();
  return socket;
}

Result<Descriptor> StoreClient::take_connection(Deadline deadline) {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      Descriptor socket = std::move(idle_.back());
      idle_.pop_back();
      return socket;
    }
  }
  return open(deadline);
}

Status StoreClient::connect(Deadline deadline) {
  auto socket = open(deadline);
  if (!socket) return within(socket.error());
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(*socket));
  return {};
}

Result<std::string> StoreClient::call(const StoreRequest& request, Deadline deadline) {
  auto socket = take_connection(deadline);
  if (!socket) return within(socket.error());
  auto body = ask(*socket, request, deadline);
  if (!body) return within(body.error());
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(*socket));
  }
  auto answer = decode_answer(*body);
  if (!answer) return within(answer.error());
  return answer;
}

Result<int64_t> StoreClient::call_for_number(const StoreRequest& request) {
  TESSERA_ASSIGN_OR_RETURN(std::string answer, call(request, Deadline::after(kCall_s)));
  return decode_number(answer);
}

Status StoreClient::set(const std::string& key, const std::string& value) {
  auto answer = call({StoreCall::set, key, value}, Deadline::after(kCall_s));
  if (!answer) return answer.error();
  return {};
}

Result<std::string> StoreClient::get(const std::string& key, Deadline deadline) {
  double wait_ms = std::clamp(deadline.seconds_left() * 1e3, 0.0, 1e9);
  Deadline with_grace{deadline.at +
                      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kGrace_s))};
  return call({StoreCall::get, key, encode_number(static_cast<int64_t>(wait_ms))}, with_grace);
}

Result<int64_t> StoreClient::add(const std::string& key, int64_t amount) {
  return call_for_number({StoreCall::add, key, encode_number(amount)});
}

Result<std::optional<std::string>> StoreClient::try_get(const std::string& key) {
  TESSERA_ASSIGN_OR_RETURN(std::string answer, call({StoreCall::try_get, key, ""}, Deadline::after(kCall_s)));
  if (answer.empty()) return make_error(ErrorCode::data_loss, "store: an answer without content");
  if (answer[0] == 0) return std::optional<std::string>();
  return std::optional<std::string>(answer.substr(1));
}

Result<int64_t> StoreClient::erase_prefix(const std::string& prefix) {
  return call_for_number({StoreCall::erase_prefix, prefix, ""});
}

}  // namespace

Result<std::shared_ptr<Store>> connect_store(const std::string& host, int port, const std::string& token,
                                             Deadline deadline) {
  auto client = std::make_shared<StoreClient>(host, port, token);
  TESSERA_RETURN_IF_ERROR(client->connect(deadline));
  return std::shared_ptr<Store>(std::move(client));
}

}  // namespace tessera
