// What KServe's protocol asks of a server of models, whichever way it came: over HTTP or gRPC.
//
// Threads: one, the HTTP server's; gRPC posts its calls to it.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "http/api_keys.h"
#include "kserve/tensors.h"

namespace tessera::kserve {

struct TensorMetadata {
  std::string name, datatype;
  std::vector<int64_t> shape;
  bool optional = false;
};

struct ModelMetadata {
  std::string name, version, platform;
  std::vector<TensorMetadata> inputs, outputs;
};

struct ModelState {
  std::string name, version, state, reason;  // state: "READY", "LOADING", "UNLOADING" or "UNAVAILABLE"
};

struct Duration {
  uint64_t count = 0, ns = 0;
};

struct ModelStatistics {
  std::string name, version;
  uint64_t last_inference_ms = 0, inference_count = 0, execution_count = 0;
  Duration success, fail, queue, compute_input, compute_infer, compute_output;
};

struct RequestedOutput {
  std::string name;
  bool binary = false;
};

struct InferRequest {
  std::string model, version, id;
  nlohmann::json parameters = nlohmann::json::object();
  std::vector<Tensor> inputs;
  std::vector<RequestedOutput> outputs;            // none: all
  std::shared_ptr<const Caller> caller = nullptr;  // who sent it, when keys are checked
  std::string request_id;                          // for logs and traces

  const Tensor* input(std::string_view name) const;
};

struct InferResponse {
  std::string model, version, id;
  nlohmann::json parameters = nlohmann::json::object();
  std::vector<Tensor> outputs;
};

// Takes the responses of one request: any number of them, then finish() or fail(), once.
class InferSink {
 public:
  virtual ~InferSink() = default;
  virtual void respond(InferResponse response) = 0;
  virtual void finish() = 0;
  virtual void fail(const Error& error) = 0;
  // More would pile up at a slow client; ready() is called when it has caught up.
  virtual bool busy() const { return false; }
  std::function<void()> ready;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual bool live() const = 0;
  virtual bool ready() const = 0;

  virtual std::vector<ModelState> models() const = 0;
  virtual bool model_ready(const std::string& name) const = 0;
  virtual Result<ModelMetadata> metadata(const std::string& model) const = 0;
  virtual Result<ModelStatistics> statistics(const std::string& model) const = 0;

  // `done` is called when the model is ready, or could not be loaded; or when it is gone.
  using Done = std::function<void(Status)>;
  virtual void load(const std::string& model, Done done) = 0;
  virtual void unload(const std::string& model, Done done) = 0;

  // Runs a request; `stream`: a response for every piece of the answer instead of one. Returns what cancels it,
  // to be called at most once and not after its end.
  virtual std::function<void()> infer(InferRequest request, bool stream, std::shared_ptr<InferSink> sink) = 0;
};

// The version that every model has: there is one of each.
inline constexpr const char* kOnlyVersion = "1";
inline constexpr const char* kServerName = "tessera";
// Every input exists, with its datatype and as many elements as its shape says (-1: any number), none twice,
// and no other is missing but optional ones; the outputs that are asked for exist. Errors: invalid_argument.
Status check_tensors(const InferRequest& request, const ModelMetadata& model);

// Of the protocol's extensions those that are served.
const std::vector<std::string>& extensions();

}  // namespace tessera::kserve
