#include <boost/asio/ssl/stream.hpp>

#include "http/stream_session.h"

namespace tessera {

namespace {

using boost::asio::ip::tcp;
using TlsStream = boost::asio::ssl::stream<tcp::socket>;

class TlsSession : public StreamSession<TlsStream> {
 public:
  using StreamSession::StreamSession;

  void start() override {
    await_reading();
    stream().async_handshake(TlsStream::server, [self = self(), this](error_code error) {
      if (error || closed()) return close();
      next_request();
    });
  }

 private:
  // The client is told that nothing was cut off; its own farewell ends the read.
  bool end_sending() override {
    stream().async_shutdown([self = self(), this](error_code) { close(); });
    return false;
  }
};

}  // namespace

std::shared_ptr<Session> make_tls_session(SessionHost& host, tcp::socket socket,
                                          boost::asio::ssl::context& tls) {
  return std::make_shared<TlsSession>(host, std::move(socket), tls);
}

}  // namespace tessera
