// Umbrella header of spec: what a model is and which tensors it has.
#pragma once

#include "spec/blueprint.h"
#include "spec/inventory.h"
#include "spec/model_spec.h"
