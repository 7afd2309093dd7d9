// Bodies of the REST protocol: inference with its binary tensors, the generate extension, and what is told
// about models. Threads: any.
#pragma once

#include "http/message.h"
#include "kserve/backend.h"

namespace tessera::kserve {

// The JSON, and behind it the bytes of the tensors that are sent in binary form; the header
// Inference-Header-Content-Length says where they begin. Errors name what is wrong with which tensor.
Result<InferRequest> read_infer(const HttpRequest& request);
// In the order and form that the request asked for. Errors: an output that does not exist.
Result<HttpResponse> write_infer(const InferResponse& response, const InferRequest& request);

// Keys that are inputs of the model become tensors, all others parameters.
Result<InferRequest> read_generate(const HttpRequest& request, const ModelMetadata& model);
nlohmann::json generate_json(const InferResponse& response);

nlohmann::json metadata_json(const ModelMetadata& model);
// Triton's model configuration, as far as it says something about this model.
nlohmann::json config_json(const ModelMetadata& model);
nlohmann::json statistics_json(const std::vector<ModelStatistics>& models);
nlohmann::json index_json(const std::vector<ModelState>& models, bool only_ready);

std::string dump(const nlohmann::json& value);

}  // namespace tessera::kserve
