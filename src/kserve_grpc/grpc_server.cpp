#include "kserve_grpc/grpc_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "core/file.h"
#include "http/caller.h"
#include "http/gate.h"
#include "kserve.grpc.pb.h"
#include "kserve_grpc/convert.h"
#include "kserve_grpc/infer_call.h"
#include "kserve_grpc/link.h"

namespace tessera::kserve {

namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using inference::GRPCInferenceService;

constexpr int kMaxMessageBytes = 16 << 20;  // as the HTTP front

std::string metadata_of(const CallbackServerContext& context, const char* name) {
  auto found = context.client_metadata().find(name);
  return found == context.client_metadata().end() ? ""
                                                  : std::string(found->second.data(), found->second.size());
}

class Service : public GRPCInferenceService::CallbackService {
 public:
  Service(Backend& backend, const GrpcServerOptions& options, std::shared_ptr<Inbox> inbox)
      : backend_(backend), options_(options), inbox_(std::move(inbox)) {}

 private:
  // Runs `work`, which may write the response, on the backend's thread; what it returns ends the call.
  ServerUnaryReactor* answer(std::function<grpc::Status()> work) {
    auto* call = new UnaryCall;
    auto handle = call->handle();
    if (!inbox_->put([handle, work] { handle->finish_with(work); })) handle->finish(shutting_down());
    return call;
  }
  // The same behind the check of keys.
  ServerUnaryReactor* answer_known(CallbackServerContext* context, std::function<grpc::Status()> work) {
    auto context_of_call = identify(*context);
    if (!context_of_call) return answer([error = context_of_call.error()] { return refusal(error); });
    return answer(std::move(work));
  }
  static grpc::Status refusal(const Error& error) { return {grpc::StatusCode::UNAUTHENTICATED, error.message}; }

  // Errors: not_found for a key that is missing or wrong.
  Result<CallContext> identify(const CallbackServerContext& context) {
    HttpRequest request{.headers = {{"Authorization", metadata_of(context, "authorization")},
                                    {"X-Api-Key", metadata_of(context, "x-api-key")}}};
    CallContext out{.backend = backend_,
                    .inbox = inbox_,
                    .caller = nullptr,
                    .request_id = request_id_of(metadata_of(context, "x-request-id"))};
    if (!options_.keys) return out;
    out.caller = options_.keys->find(api_key_of(request));
    if (out.caller) return out;
    return make_error(ErrorCode::not_found, "no API key that this server knows in 'authorization'");
  }

  ServerUnaryReactor* ServerLive(CallbackServerContext*, const inference::ServerLiveRequest*,
                                 inference::ServerLiveResponse* response) override {
    return answer([this, response] {
      response->set_live(backend_.live());
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ServerReady(CallbackServerContext*, const inference::ServerReadyRequest*,
                                  inference::ServerReadyResponse* response) override {
    return answer([this, response] {
      response->set_ready(backend_.ready());
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ModelReady(CallbackServerContext* context, const inference::ModelReadyRequest* request,
                                 inference::ModelReadyResponse* response) override {
    return answer_known(context, [this, name = request->name(), response] {
      response->set_ready(backend_.model_ready(name));
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ServerMetadata(CallbackServerContext* context, const inference::ServerMetadataRequest*,
                                     inference::ServerMetadataResponse* response) override {
    return answer_known(context, [this, response] {
      response->set_name(kServerName);
      response->set_version(options_.version);
      for (const std::string& extension : extensions()) response->add_extensions(extension);
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ModelMetadata(CallbackServerContext* context,
                                    const inference::ModelMetadataRequest* request,
                                    inference::ModelMetadataResponse* response) override {
    return answer_known(context, [this, name = request->name(), response] {
      auto metadata = backend_.metadata(name);
      if (!metadata) return to_grpc(metadata.error());
      to_message(*metadata, *response);
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ModelConfig(CallbackServerContext* context, const inference::ModelConfigRequest* request,
                                  inference::ModelConfigResponse* response) override {
    return answer_known(context, [this, name = request->name(), response] {
      auto metadata = backend_.metadata(name);
      if (!metadata) return to_grpc(metadata.error());
      to_message(*metadata, *response->mutable_config());
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* ModelStatistics(CallbackServerContext* context,
                                      const inference::ModelStatisticsRequest* request,
                                      inference::ModelStatisticsResponse* response) override {
    return answer_known(context, [this, name = request->name(), response] {
      std::vector<std::string> names = {name};
      if (name.empty()) names.clear();
      for (const ModelState& model : backend_.models())
        if (name.empty()) names.push_back(model.name);
      for (const std::string& one : names) {
        auto statistics = backend_.statistics(one);
        if (statistics)
          to_message(*statistics, *response->add_model_stats());
        else if (!name.empty())
          return to_grpc(statistics.error());
      }
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* RepositoryIndex(CallbackServerContext* context,
                                      const inference::RepositoryIndexRequest* request,
                                      inference::RepositoryIndexResponse* response) override {
    return answer_known(context, [this, only_ready = request->ready(), response] {
      for (const ModelState& model : backend_.models()) {
        if (only_ready && model.state != "READY") continue;
        auto* one = response->add_models();
        one->set_name(model.name);
        one->set_version(model.version);
        one->set_state(model.state);
        one->set_reason(model.reason);
      }
      return grpc::Status::OK;
    });
  }
  ServerUnaryReactor* change(CallbackServerContext* context, const std::string& model, const char* verb,
                             void (Backend::*what)(const std::string&, Backend::Done)) {
    auto identified = identify(*context);
    if (!identified) return answer([error = identified.error()] { return refusal(error); });
    if (identified->caller && !identified->caller->admin)
      return answer([reason = needs_admin(*identified->caller, fmt::format("{} models", verb))] {
        return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, reason);
      });
    auto* call = new UnaryCall;
    auto handle = call->handle();
    auto done = [handle](const Status& status) {
      handle->finish(status.ok() ? grpc::Status::OK : to_grpc(status.error()));
    };
    if (!inbox_->put([this, model, what, done] { (backend_.*what)(model, done); }))
      handle->finish(shutting_down());
    return call;
  }
  ServerUnaryReactor* RepositoryModelLoad(CallbackServerContext* context,
                                          const inference::RepositoryModelLoadRequest* request,
                                          inference::RepositoryModelLoadResponse*) override {
    return change(context, request->model_name(), "load", &Backend::load);
  }
  ServerUnaryReactor* RepositoryModelUnload(CallbackServerContext* context,
                                            const inference::RepositoryModelUnloadRequest* request,
                                            inference::RepositoryModelUnloadResponse*) override {
    return change(context, request->model_name(), "unload", &Backend::unload);
  }

  ServerUnaryReactor* ModelInfer(CallbackServerContext* context, const inference::ModelInferRequest* request,
                                 inference::ModelInferResponse* response) override {
    auto call = identify(*context);
    if (!call) return answer([error = call.error()] { return refusal(error); });
    return start_infer(std::move(*call), request, response);
  }
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      CallbackServerContext* context) override {
    auto call = identify(*context);
    if (call) return start_stream(std::move(*call));
    class Refused
        : public grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse> {
     public:
      explicit Refused(const grpc::Status& status) { Finish(status); }
      void OnDone() override { delete this; }
    };
    return new Refused(refusal(call.error()));
  }

  Backend& backend_;
  const GrpcServerOptions& options_;
  std::shared_ptr<Inbox> inbox_;
};

class Server : public GrpcServer {
 public:
  Server(Backend& backend, GrpcServerOptions options)
      : options_(std::move(options)),
        inbox_(std::make_shared<Inbox>(options_.post)),
        service_(backend, options_, inbox_) {}

  ~Server() override {
    inbox_->close();
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

  Status open() {
    TESSERA_ASSIGN_OR_RETURN(auto credentials, make_credentials());
    grpc::ServerBuilder builder;
    int bound = 0;
    builder.AddListeningPort(fmt::format("{}:{}", options_.host, options_.port), credentials, &bound);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_ || bound == 0)
      return make_error(ErrorCode::unavailable, "cannot listen on {}:{} for gRPC; give another --grpc-port",
                        options_.host, options_.port);
    port_ = static_cast<uint16_t>(bound);
    return {};
  }

  uint16_t port() const override { return port_; }

 private:
  Result<std::shared_ptr<grpc::ServerCredentials>> make_credentials() const {
    if (options_.tls_certificate.empty()) return grpc::InsecureServerCredentials();
    TESSERA_ASSIGN_OR_RETURN(std::string certificate, read_file(options_.tls_certificate));
    TESSERA_ASSIGN_OR_RETURN(std::string key, read_file(options_.tls_key));
    grpc::SslServerCredentialsOptions tls;
    tls.pem_key_cert_pairs.push_back({key, certificate});
    return grpc::SslServerCredentials(tls);
  }

  GrpcServerOptions options_;
  std::shared_ptr<Inbox> inbox_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  uint16_t port_ = 0;
};

}  // namespace

Result<std::unique_ptr<GrpcServer>> GrpcServer::start(Backend& backend, GrpcServerOptions options) {
  auto server = std::make_unique<Server>(backend, std::move(options));
  TESSERA_RETURN_IF_ERROR(server->open());
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace tessera::kserve
