// Models as KServe's protocol sees them: a text goes in, a text comes out. The tensors are those of Triton's
// backend for vLLM, so that its clients work unchanged:
//
//   in   text_input BYTES [1]; stream BOOL [1]; sampling_parameters BYTES [1], a JSON object;
//        exclude_input_in_output, return_finish_reason, return_num_input_tokens, return_num_output_tokens BOOL
//        [1]
//   out  text_output BYTES [1]; finish_reason BYTES [1]; num_input_tokens, num_output_tokens UINT32 [1]
//
// Sampling parameters are those of POST /v1/completions, read by the same code; request parameters of the
// protocol are taken as further ones, `priority` and `timeout` (microseconds) as the protocol means them.
// Threads: the server's.
#pragma once

#include "http/server.h"
#include "kserve/backend.h"
#include "serve/body_readers.h"
#include "serve/model_directory.h"
#include "serve/probes.h"

namespace tessera::serve {

class KServeBackend : public kserve::Backend {
 public:
  // All must outlive it.
  KServeBackend(ModelDirectory& models, HttpServer& server, BodyReaders& readers, const Probes& probes)
      : models_(models), server_(server), readers_(readers), probes_(probes) {}

  bool live() const override { return !probes_.not_live(); }
  bool ready() const override { return !probes_.not_ready(); }
  std::vector<kserve::ModelState> models() const override;
  bool model_ready(const std::string& name) const override;
  Result<kserve::ModelMetadata> metadata(const std::string& model) const override;
  Result<kserve::ModelStatistics> statistics(const std::string& model) const override;
  void load(const std::string& model, Done done) override { models_.load(model, std::move(done)); }
  void unload(const std::string& model, Done done) override { models_.unload(model, std::move(done)); }
  std::function<void()> infer(kserve::InferRequest request, bool stream,
                              std::shared_ptr<kserve::InferSink> sink) override;

 private:
  Status takes(const kserve::InferRequest& request) const;

  ModelDirectory& models_;
  HttpServer& server_;
  BodyReaders& readers_;
  const Probes& probes_;
};

}  // namespace tessera::serve
