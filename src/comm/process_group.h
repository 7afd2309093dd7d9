// Brings the processes of a group together: each publishes in the store where it can be reached, connects to
// the lower ranks and receives the higher ones. Nobody waits for a lower rank before it has said hello to all
// of them, so no order of arrival can block.
#pragma once

#include "comm/group.h"

namespace tessera::comm {

// As make_process_group, with a host identity of the caller's choice: ranks with different ones take each other
// to be on different hosts.
Result<std::unique_ptr<Group>> join_group(Store& store, const GroupOptions& options, const std::string& host);

}  // namespace tessera::comm
