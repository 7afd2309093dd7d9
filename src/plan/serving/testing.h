// A device and an engine without any loss, for tests: what is left is the roofline.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "plan/catalogue.h"
#include "plan/serving/search.h"

namespace tessera::plan::serving {

inline Accelerator ideal_h100() {
  return {.name = "ideal-h100",
          .generation = "ideal",
          .bf16 = 989e12,
          .fp8 = 1979e12,
          .attention = 989e12,
          .memory_bytes = 80e9,
          .memory_bytes_per_s = 3.35e12,
          .link_bytes_per_s = 1e18,
          .domain = 8,
          .nic_bytes_per_s = 1e18,
          .power = {.device_w = 700, .idle_w = 80, .all_in_w = 1500, .host_w = 350},
          .economy = {.price = 2}};
}
inline Engine ideal_engine() {
  Engine engine{.name = "ideal", .version = ""};
  for (double Engine::*share :
       {&Engine::compute, &Engine::memory, &Engine::expert_compute, &Engine::expert_memory, &Engine::attention,
        &Engine::cache_memory, &Engine::link, &Engine::network})
    engine.*share = 1;
  for (double Engine::*none : {&Engine::activations, &Engine::layer_s, &Engine::expert_layer_s, &Engine::step_s,
                               &Engine::sequence_s, &Engine::prompt_s, &Engine::reduce_s, &Engine::exchange_s,
                               &Engine::expert_skew, &Engine::workspace_bytes})
    engine.*none = 0;
  engine.max_running = 4096;
  return engine;
}
inline Deployment on_ideal(const std::string& model, WorkerLayout layout,
                           WeightFormat format = WeightFormat::bf16) {
  Result<Blueprint> blueprint = find_model(model);
  EXPECT_TRUE(blueprint.ok()) << (blueprint.ok() ? "" : blueprint.error().message);
  return {.model = *blueprint,
          .device = ideal_h100(),
          .engine = ideal_engine(),
          .layout = layout,
          .formats = formats_for(*blueprint, format, format, format == WeightFormat::bf16 ? 2 : 1),
          .speculation = {}};
}

inline SearchRequest ideal_request(const std::string& model, int64_t gpus = 8) {
  SearchRequest request{.model = *find_model(model),
                        .device = ideal_h100(),
                        .engine = ideal_engine(),
                        .one_phase_engine = ideal_engine(),
                        .formats = {},
                        .speculation = {},
                        .gpus = gpus,
                        .finalists = 0};
  request.formats = formats_for(request.model, WeightFormat::fp8, WeightFormat::fp8, 1);
  request.traffic.concurrency = 0;
  return request;
}

}  // namespace tessera::plan::serving
