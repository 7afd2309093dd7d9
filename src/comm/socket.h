// The few socket calls that groups and the store need: non-blocking descriptors, waits with a deadline, and
// descriptors passed along. Addresses are IPv4, IPv6 or host names; Unix sockets are abstract, so no file is
// left behind.
#pragma once

#include <optional>
#include <string>

#include "comm/group.h"

namespace tessera::comm {

// Owns a descriptor of any kind.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int number() const { return number_; }
  bool valid() const { return number_ >= 0; }
  int release();

 private:
  int number_ = -1;
};

Result<Descriptor> listen_unix(const std::string& name);
Result<Descriptor> connect_unix(const std::string& name, Deadline deadline);
Result<Descriptor> listen_tcp(const std::string& address, int port);  // port 0: any free one
Result<Descriptor> connect_tcp(const std::string& host, int port, Deadline deadline);
Result<int> local_port(const Descriptor& listener);
// The next connection, or nothing when none waits or it is gone already.
std::optional<Descriptor> accept_one(const Descriptor& listener);

// Small messages of a handshake. send_all passes the descriptor `passed` along with the first byte.
Status send_all(const Descriptor& socket, Bytes data, Deadline deadline, int passed = -1);
Status receive_all(const Descriptor& socket, MutableBytes data, Deadline deadline,
                   Descriptor* passed = nullptr);
// What is there now: 0 bytes for nothing yet, an error at the end of file.
Result<size_t> receive_some(const Descriptor& socket, MutableBytes data, Descriptor* passed = nullptr);

// Takes the same time wherever the two differ.
bool same_token(const std::string& a, const std::string& b);
std::string random_name();  // "tessera-" and 32 random hexadecimal digits

}  // namespace tessera::comm
