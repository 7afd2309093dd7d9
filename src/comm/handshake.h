// How two ranks of a group find that they belong together. The higher rank connects and says hello; the lower
// one checks the token before anything else, then name, size and rank, and answers. Over a Unix socket both
// pass their memory along. Whoever else connects is turned away and disturbs nobody.
//
//   hello    "TESSERA1", then little-endian u32 bytes of token, u32 bytes of name, u32 rank, u32 ranks,
//            u64 ring_bytes; then token and name
//   welcome  "WELCOME1"
#pragma once

#include <map>
#include <vector>

#include "comm/socket.h"

namespace tessera::comm {

struct Hello {
  std::string token, name;
  int64_t rank = 0, ranks = 0, ring_bytes = 0;
};

struct Accepted {
  Descriptor socket;
  Descriptor memory;  // passed by the peer; not valid over TCP
};

Status say_hello(const Descriptor& socket, const Hello& hello, Deadline deadline, int memory);
// What the lower rank answers, with its memory when it passes some.
Result<Descriptor> await_welcome(const Descriptor& socket, Deadline deadline);

class Reception {
 public:
  // `me` is what we would say ourselves; hellos must agree with it. `memory` is passed to those who come over
  // `unix_listener`. Listeners that are not valid are skipped.
  Reception(Hello me, const Descriptor& unix_listener, const Descriptor& tcp_listener, int memory)
      : me_(std::move(me)), unix_(unix_listener), tcp_(tcp_listener), memory_(memory) {}

  // Until each of `ranks` has come.
  Result<std::map<int64_t, Accepted>> receive(std::vector<int64_t> ranks, Deadline deadline);

 private:
  struct Visitor {
    Descriptor socket, memory;
    bool over_unix = false;
    std::vector<std::byte> said;
    Deadline patience;
  };
  enum class Verdict { listening, welcome, refused };

  void wait(Deadline deadline);
  void let_in(const Descriptor& listener, bool over_unix);
  Verdict listen_to(Visitor& visitor, Hello& hello);
  const char* objection(const Visitor& visitor, const Hello& hello) const;
  void admit(Visitor& visitor, int64_t rank);

  Hello me_;
  const Descriptor &unix_, &tcp_;
  int memory_;
  std::vector<int64_t> awaited_;
  std::vector<Visitor> visitors_;
  std::map<int64_t, Accepted> accepted_;
};

}  // namespace tessera::comm
