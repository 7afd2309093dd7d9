// Which host this process is on, for errors and for the choice of transport.
#pragma once

#include <string>

namespace tessera::comm {

std::string host_name();
// Equal for processes that can share memory: boot id and network namespace.
std::string host_identity();

}  // namespace tessera::comm
