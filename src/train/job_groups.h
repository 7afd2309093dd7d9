// Makes every group that a rank of a layout needs, in one order on all ranks.
#pragma once

#include "model/context.h"
#include "train/trainer.h"

namespace tessera::train {

// Fills context.groups, and `tied` with the group of first and last stage when they share an embedding (else
// null).
Status make_groups(model::Context& context, const TrainerOptions& options, std::unique_ptr<Group>& tied);
std::vector<Group*> all_groups(model::Context& context, Group* tied);

}  // namespace tessera::train
