#include "serve/kserve_backend.h"

#include "serve/kserve_call.h"

namespace tessera::serve {

namespace {

uint64_t nanoseconds(double seconds) {
  return static_cast<uint64_t>(seconds * 1e9);
}

kserve::TensorMetadata tensor(std::string name, std::string datatype, bool optional) {
  return {.name = std::move(name), .datatype = std::move(datatype), .shape = {1}, .optional = optional};
}

}  // namespace

std::vector<kserve::ModelState> KServeBackend::models() const {
  std::vector<kserve::ModelState> out;
  for (const auto& entry : models_.entries())
    out.push_back({.name = entry.name,
                   .version = kserve::kOnlyVersion,
                   .state = to_string(entry.state),
                   .reason = entry.state == ModelDirectory::State::ready ? "" : entry.reason});
  return out;
}

bool KServeBackend::model_ready(const std::string& name) const {
  auto model = models_.find(name);
  return model && (*model)->engine->health().ready && !server_.draining();
}

Result<kserve::ModelMetadata> KServeBackend::metadata(const std::string& model) const {
  TESSERA_ASSIGN_OR_RETURN(auto found, models_.find(model));
  return kserve::ModelMetadata{
      .name = found->name.name,
      .version = kserve::kOnlyVersion,
      .platform = kserve::kServerName,
      .inputs = {tensor("text_input", "BYTES", false), tensor("stream", "BOOL", true),
                 tensor("sampling_parameters", "BYTES", true), tensor("exclude_input_in_output", "BOOL", true),
                 tensor("return_finish_reason", "BOOL", true), tensor("return_num_input_tokens", "BOOL", true),
                 tensor("return_num_output_tokens", "BOOL", true)},
      .outputs = {tensor("text_output", "BYTES", false), tensor("finish_reason", "BYTES", true),
                  tensor("num_input_tokens", "UINT32", true), tensor("num_output_tokens", "UINT32", true)}};
}

Result<kserve::ModelStatistics> KServeBackend::statistics(const std::string& model) const {
  TESSERA_ASSIGN_OR_RETURN(auto found, models_.find(model));
  auto counts = found->engine->metrics().snapshot();
  auto good = static_cast<uint64_t>(counts.finished["stop"] + counts.finished["length"]);
  auto bad = static_cast<uint64_t>(counts.finished["error"] + counts.finished["abort"]);
  uint64_t compute_ns = nanoseconds(counts.prefill_s + counts.decode_s);
  return kserve::ModelStatistics{.name = found->name.name,
                                 .version = kserve::kOnlyVersion,
                                 .last_inference_ms = static_cast<uint64_t>(counts.last_ended_ms),
                                 .inference_count = good,
                                 .execution_count = static_cast<uint64_t>(counts.steps),
                                 .success = {good, nanoseconds(counts.good_s)},
                                 .fail = {bad, nanoseconds(counts.total_s - counts.good_s)},
                                 .queue = {good + bad, nanoseconds(counts.queue_s)},
                                 .compute_input = {good + bad, 0},
                                 .compute_infer = {good + bad, compute_ns},
                                 .compute_output = {good + bad, 0}};
}

std::function<void()> KServeBackend::infer(kserve::InferRequest request, bool stream,
                                           std::shared_ptr<kserve::InferSink> sink) {
  Status status = takes(request);
  auto model = models_.find(request.model);
  if (status.ok() && model)
    return start_kserve_call(*model, server_, readers_, std::move(request), stream, std::move(sink));
  sink->fail(status.ok() ? model.error() : status.error());
  return [] {};
}

Status KServeBackend::takes(const kserve::InferRequest& request) const {
  if (server_.closed()) return make_error(ErrorCode::unavailable, "the server is shutting down");
  TESSERA_ASSIGN_OR_RETURN(auto model, metadata(request.model));
  return check_tensors(request, model);
}

}  // namespace tessera::serve
