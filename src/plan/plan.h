// Umbrella header of plan: clusters, predictions, the search, reports.
#pragma once

#include "plan/catalogue.h"
#include "plan/cluster.h"
#include "plan/memory.h"
#include "plan/report.h"
#include "plan/search.h"
#include "plan/step_time.h"
