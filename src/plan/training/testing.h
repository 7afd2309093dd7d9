// Requests that tests and benchmarks of the training planner share. Not part of the library.
#pragma once

#include "plan/catalogue.h"
#include "plan/training/gpu_search.h"

namespace tessera::plan::testing {

// REQUIRES: both names are in the catalogues.
inline GpuPlanRequest request_for(const char* model, const char* cluster, int64_t gpus, int64_t seq,
                                  int64_t batch) {
  GpuPlanRequest request;
  request.model = *find_model(model);
  request.cluster = for_training(*load_gpu_cluster(cluster));
  request.software = newest_software();
  request.work.seq = seq, request.work.global_batch = batch;
  request.gpus = gpus;
  return request;
}

inline TrainingSetup setup_for(const GpuPlanRequest& request) {
  return {.model = request.model, .work = request.work, .layout = {}, .options = request.options};
}

}  // namespace tessera::plan::testing
