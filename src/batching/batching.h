// Umbrella header of batching: the serving policy, run by the server and by the planner's simulation.
#pragma once

#include "batching/counted_scheduler.h"
#include "batching/kv_blocks.h"
#include "batching/kv_cache.h"
#include "batching/prefix_tree.h"
#include "batching/request.h"
#include "batching/scheduler.h"
#include "batching/tenants.h"
#include "batching/wait_predictor.h"
#include "batching/waiting_queue.h"
