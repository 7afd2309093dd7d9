#include "http/stream_session.h"

namespace tessera {

std::shared_ptr<Session> make_session(SessionHost& host, boost::asio::ip::tcp::socket socket) {
  return std::make_shared<StreamSession<boost::asio::ip::tcp::socket>>(host, std::move(socket));
}

}  // namespace tessera
