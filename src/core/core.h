// Umbrella header of core: what every part may use.
#pragma once

#include "core/clock.h"
#include "core/config.h"
#include "core/exact_sum.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/nearest.h"
#include "core/progress.h"
#include "core/result.h"
