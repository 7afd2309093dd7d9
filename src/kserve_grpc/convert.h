// Messages of the protocol to and from what the backend knows. Threads: any.
#pragma once

#include <grpcpp/support/status.h>

#include "kserve.pb.h"
#include "kserve/backend.h"

namespace tessera::kserve {

grpc::Status to_grpc(const Error& error);
Result<InferRequest> from_message(const inference::ModelInferRequest& message);
void to_message(const InferResponse& response, const InferRequest& request,
                inference::ModelInferResponse& message);
void to_message(const ModelMetadata& model, inference::ModelMetadataResponse& message);
void to_message(const ModelMetadata& model, inference::ModelConfig& message);
void to_message(const ModelStatistics& model, inference::ModelStatistics& message);

}  // namespace tessera::kserve
