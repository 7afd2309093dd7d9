#include "comm/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/file.h"

namespace tessera::comm {
namespace {

Error socket_error(const std::string& doing, int number) {
  ErrorCode code = ErrorCode::unavailable;
  if (number == EMFILE || number == ENFILE || number == ENOMEM) code = ErrorCode::resource_exhausted;
  return make_error(code, "{}: {}", doing, errno_text(number));
}

Result<Descriptor> make_socket(int family) {
  Descriptor made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.valid()) return socket_error("cannot make a socket", errno);
  return made;
}

// A leading zero byte makes the name abstract.
std::pair<sockaddr_un, socklen_t> unix_address(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length)};
}

struct Addresses {
  addrinfo* list = nullptr;
  ~Addresses() {
    if (list != nullptr) ::freeaddrinfo(list);
  }
};

Status resolve(const std::string& host, int port, int flags, Addresses& found) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found.list);
  if (failed == 0) return {};
  return make_error(ErrorCode::not_found, "cannot resolve address '{}': {}", host, ::gai_strerror(failed));
}

// Waits until a poll event or the deadline.
bool wait_ready(int descriptor, short events, Deadline deadline) {
  while (!deadline.passed()) {
    pollfd entry{descriptor, events, 0};
    int wait_ms = static_cast<int>(std::clamp(deadline.seconds_left() * 1e3 + 1, 1.0, 1e6));
    if (::poll(&entry, 1, wait_ms) > 0) return true;
  }
  return false;
}

// Small messages go out at once; a host that vanished without a word is noticed in some seconds.
void tune_tcp(int socket) {
  int on = 1, idle_s = 2, interval_s = 1, probes = 3, unanswered_ms = 10000;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

Status finish_connect(const Descriptor& socket, Deadline deadline) {
  if (!wait_ready(socket.number(), POLLOUT, deadline)) {
    return make_error(ErrorCode::deadline_exceeded, "no answer in time");
  }
  int failed = 0;
  socklen_t length = sizeof failed;
  ::getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &failed, &length);
  if (failed != 0) return socket_error("refused", failed);
  return {};
}

Result<Descriptor> connect_to(const addrinfo& address, Deadline deadline) {
  TESSERA_ASSIGN_OR_RETURN(Descriptor made, make_socket(address.ai_family));
  if (::connect(made.number(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return socket_error("connect", errno);
    TESSERA_RETURN_IF_ERROR(finish_connect(made, deadline));
  }
  tune_tcp(made.number());
  return made;
}

Result<Descriptor> listen_at(const addrinfo& address) {
  TESSERA_ASSIGN_OR_RETURN(Descriptor made, make_socket(address.ai_family));
  int on = 1;
  ::setsockopt(made.number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  bool bound = ::bind(made.number(), address.ai_addr, address.ai_addrlen) == 0;
  if (!bound || ::listen(made.number(), SOMAXCONN) != 0) return socket_error("bind", errno);
  return made;
}

// Room for one passed descriptor.
struct Ancillary {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))] = {};

  void attach(msghdr& message, int passed) {
    message.msg_control = bytes;
    message.msg_controllen = sizeof bytes;
    cmsghdr* control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(control), &passed, sizeof passed);
  }
  static void take(msghdr& message, Descriptor& into) {
    cmsghdr* control = CMSG_FIRSTHDR(&message);
    if (control == nullptr || control->cmsg_type != SCM_RIGHTS) return;
    int passed = -1;
    std::memcpy(&passed, CMSG_DATA(control), sizeof passed);
    into = Descriptor(passed);
  }
};

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (number_ >= 0) ::close(number_);
    number_ = other.release();
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

int Descriptor::release() {
  return std::exchange(number_, -1);
}

Result<Descriptor> listen_unix(const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(Descriptor made, make_socket(AF_UNIX));
  auto [address, length] = unix_address(name);
  bool bound = ::bind(made.number(), reinterpret_cast<sockaddr*>(&address), length) == 0;
  if (!bound || ::listen(made.number(), SOMAXCONN) != 0) return socket_error("unix socket @" + name, errno);
  return made;
}

Result<Descriptor> connect_unix(const std::string& name, Deadline deadline) {
  TESSERA_ASSIGN_OR_RETURN(Descriptor made, make_socket(AF_UNIX));
  auto [address, length] = unix_address(name);
  while (::connect(made.number(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    bool crowded = errno == EAGAIN || errno == EINTR;  // more connections wait than the listener queues
    if (!crowded || deadline.passed()) return socket_error("unix socket @" + name, errno);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return made;
}

Result<Descriptor> listen_tcp(const std::string& address, int port) {
  Addresses found;
  TESSERA_RETURN_IF_ERROR(resolve(address, port, AI_PASSIVE, found));
  auto made = listen_at(*found.list);
  if (made) return made;
  return make_error(made.error().code, "cannot listen on {}:{}: {}; choose another address or port 0", address,
                    port, made.error().message);
}

Result<Descriptor> connect_tcp(const std::string& host, int port, Deadline deadline) {
  Addresses found;
  TESSERA_RETURN_IF_ERROR(resolve(host, port, 0, found));
  Error last;
  for (addrinfo* address = found.list; address != nullptr; address = address->ai_next) {
    auto made = connect_to(*address, deadline);
    if (made) return made;
    last = made.error();
  }
  return last.within(fmt::format("cannot connect to {}:{}", host, port));
}

Result<int> local_port(const Descriptor& listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(listener.number(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return socket_error("getsockname", errno);
  }
  if (address.ss_family == AF_INET6) return int{ntohs(reinterpret_cast<sockaddr_in6&>(address).sin6_port)};
  return int{ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port)};
}

std::optional<Descriptor> accept_one(const Descriptor& listener) {
  Descriptor made(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!made.valid()) return std::nullopt;
  tune_tcp(made.number());  // no effect on a Unix socket
  return made;
}

Status send_all(const Descriptor& socket, Bytes data, Deadline deadline, int passed) {
  Ancillary ancillary;
  while (!data.empty()) {
    iovec piece{const_cast<std::byte*>(data.data()), data.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (passed >= 0) ancillary.attach(message, passed);
    ssize_t count = ::sendmsg(socket.number(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      data = data.subspan(static_cast<size_t>(count));
      passed = -1;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_ready(socket.number(), POLLOUT, deadline)) {
        return make_error(ErrorCode::deadline_exceeded, "the other side takes no bytes");
      }
    } else if (errno != EINTR) {
      return socket_error("send", errno);
    }
  }
  return {};
}

Result<size_t> receive_some(const Descriptor& socket, MutableBytes data, Descriptor* passed) {
  Ancillary ancillary;
  iovec piece{data.data(), data.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed != nullptr) {
    message.msg_control = ancillary.bytes;
    message.msg_controllen = sizeof ancillary.bytes;
  }
  ssize_t count = ::recvmsg(socket.number(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count > 0) {
    if (passed != nullptr) Ancillary::take(message, *passed);
    return static_cast<size_t>(count);
  }
  if (count == 0) return make_error(ErrorCode::unavailable, "the other side closed the connection");
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return size_t{0};
  return socket_error("receive", errno);
}

Status receive_all(const Descriptor& socket, MutableBytes data, Deadline deadline, Descriptor* passed) {
  while (!data.empty()) {
    TESSERA_ASSIGN_OR_RETURN(size_t count, receive_some(socket, data, passed));
    data = data.subspan(count);
    if (count == 0 && !wait_ready(socket.number(), POLLIN, deadline)) {
      return make_error(ErrorCode::deadline_exceeded, "no bytes in time");
    }
  }
  return {};
}

bool same_token(const std::string& a, const std::string& b) {
  size_t longest = std::max(a.size(), b.size());
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < longest; ++i) {
    auto x = static_cast<unsigned char>(i < a.size() ? a[i] : 0);
    auto y = static_cast<unsigned char>(i < b.size() ? b[i] : 0);
    different |= static_cast<unsigned>(x ^ y);
  }
  return different == 0;
}

std::string random_name() {
  uint64_t words[2] = {};
  TESSERA_REQUIRE(::getrandom(words, sizeof words, 0) == sizeof words, "the kernel gives no random bytes");
  return fmt::format("tessera-{:016x}{:016x}", words[0], words[1]);
}

}  // namespace tessera::comm
