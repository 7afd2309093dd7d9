// KServe's Open Inference Protocol, version 2, over JSON: requests to score as a batch, and what a model says
// of itself. One input tensor for each feature, by its name:
//
//   numbers          FP32, FP64 or whole numbers, shape [B] or [B, 1]
//   ids              BYTES (text as in the logs, "" unknown) or whole numbers, shape [B] or [B, 1]
//   several ids      the same, shape [B, L]; "" or -1 fills a row up
//
// Outputs: `score`, FP64 [B], the probability of a click; `logit`, FP32 [B], where it is asked for by name.
// Errors are {"error": TEXT}. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "recsys_serve/score_request.h"
#include "recsys_serve/served_model.h"

namespace tessera::recsys_serve {

struct InferRequest {
  recsys_data::Batch batch;
  std::string id;                    // the caller's, given back
  std::vector<std::string> outputs;  // asked for; empty: score
};
std::variant<InferRequest, HttpError> parse_infer_request(std::string_view body,
                                                          const recsys_data::EncodedFeatures& features,
                                                          int64_t max_rows);
std::string infer_response(const InferRequest& request, const Scores& scores, const std::string& model_name);

// GET /v2 and GET /v2/models/NAME.
std::string server_metadata(const std::string& version);
std::string model_metadata(const std::string& model_name, int64_t version,
                           const recsys_data::EncodedFeatures& features);

}  // namespace tessera::recsys_serve
