// Ranks that write one checkpoint go on together or stop together: small collectives over a Group for texts and
// verdicts.
#pragma once

#include <string>
#include <vector>

#include "comm/group.h"

namespace tessera::checkpoint {

// Success when all ranks pass success; otherwise the error of the lowest rank that failed, named, on all ranks
// (the text is cut after about 1000 bytes).
Status agree(Group& group, const Status& mine);
// Texts of all ranks, in order, on rank 0; nothing elsewhere.
Result<std::vector<std::string>> gather_texts(Group& group, const std::string& mine);
// Rank 0's text on all ranks; 200 bytes at most.
Result<std::string> share_text(Group& group, const std::string& text);

}  // namespace tessera::checkpoint
