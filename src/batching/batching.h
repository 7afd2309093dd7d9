// Umbrella header of batching: the serving policy, run by the server and by the planner's simulation.
#pragma once

#include "batching/kv_blocks.h"
#include "batching/scheduler.h"
