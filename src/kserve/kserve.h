// Umbrella header of kserve: KServe's protocol without models.
#pragma once

#include "kserve/backend.h"
#include "kserve/rest.h"
#include "kserve/tensors.h"
