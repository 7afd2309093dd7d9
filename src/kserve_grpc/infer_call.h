// Inference over gRPC: one answer to one request, or a stream of answers to a stream of requests. Internal.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <map>

#include "kserve.pb.h"
#include "kserve/backend.h"
#include "kserve_grpc/inbox.h"

namespace tessera::kserve {

// What calls need of their server.
struct CallContext {
  Backend& backend;
  std::shared_ptr<Inbox> inbox;
  std::shared_ptr<const Caller> caller;
  std::string request_id;
};

grpc::ServerUnaryReactor* start_infer(CallContext context, const inference::ModelInferRequest* request,
                                      inference::ModelInferResponse* response);
grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* start_stream(
    CallContext context);

}  // namespace tessera::kserve
