// The timelines of all ranks on every rank, for traces and reports. Collective. Throws model::Failure.
#pragma once

#include <vector>

#include "comm/group.h"
#include "train/trainer.h"

namespace tessera::train {

std::vector<std::vector<TimelineEvent>> gather_timelines(Group& world, const std::vector<TimelineEvent>& mine);

}  // namespace tessera::train
