// A Group on channels of any kind: numbers operations, puts them in order, runs the collectives and keeps the
// books. Made by make_thread_groups and make_process_group.
#pragma once

#include "comm/collectives.h"
#include "comm/operation_queue.h"

namespace tessera::comm {

struct GroupIdentity {
  std::string name;  // for errors
  std::string host;
  double timeout_s = 300;
};

std::unique_ptr<Group> make_channel_group(GroupIdentity identity, Links links);

}  // namespace tessera::comm
