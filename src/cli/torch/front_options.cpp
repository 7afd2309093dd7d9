#include "cli/torch/front_options.h"

#include <sys/resource.h>

#include "cli/number_checks.h"
#include "core/log.h"

namespace tessera::cli {

namespace {

// Every open stream is a file; the usual soft limit of 1024 is for programs that use select().
void allow_many_files() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

bool is_local(const std::string& host) {
  return host == "localhost" || host.starts_with("127.") || host == "::1";
}

}  // namespace

void FrontFlags::add_to(CLI::App& command) {
  command.add_option("--host", http.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", http.port, "0: any free one")->capture_default_str();
  command.add_option(
      "--api-keys", api_keys,
      "TOML file of the keys that may call: [[key]] with key or sha256, tenant and, if wanted, "
      "requests_per_minute, tokens_per_minute, models, priority, admin; without it everyone may");
  command.add_option("--tls-cert", http.tls_certificate,
                     "PEM file of the certificate and its chain: https only");
  command.add_option("--tls-key", http.tls_key, "PEM file of its private key");
  command.add_option("--drain-timeout", http.drain_timeout_s, "Seconds for running requests after SIGTERM")
      ->check(non_negative_number())
      ->capture_default_str();
}

void FrontFlags::add_grpc_to(CLI::App& command) {
  command.add_option("--grpc-port", grpc_port, "KServe over gRPC on this port as well; 0: any free one");
}

Result<std::unique_ptr<HttpServer>> FrontFlags::listen() const {
  TESSERA_ASSIGN_OR_RETURN(auto keys, load_keys());
  if (keys && http.tls_certificate.empty() && !is_local(http.host))
    log(LogLevel::warn,
        "API keys cross the network in the clear: give --tls-cert and --tls-key, or put a proxy in front");
  allow_many_files();
  return HttpServer::listen(http);
}

Result<std::shared_ptr<const ApiKeys>> FrontFlags::load_keys() const {
  if (api_keys.empty()) return std::shared_ptr<const ApiKeys>();
  TESSERA_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::load(api_keys));
  return std::make_shared<const ApiKeys>(std::move(keys));
}

HttpServer::Handler FrontFlags::guarded(HttpServer::Handler handler,
                                        const std::shared_ptr<const ApiKeys>& keys) {
  return keys ? guarded_by(*keys, std::move(handler)) : handler;
}

Result<HttpServer::Handler> FrontFlags::guarded(HttpServer::Handler handler) const {
  TESSERA_ASSIGN_OR_RETURN(auto keys, load_keys());
  return guarded(std::move(handler), keys);
}

Result<std::unique_ptr<kserve::GrpcServer>> FrontFlags::start_grpc(kserve::Backend& backend, HttpServer& server,
                                                                   std::shared_ptr<const ApiKeys> keys) const {
  if (!grpc_port) return std::unique_ptr<kserve::GrpcServer>();
#ifdef TESSERA_GRPC
  kserve::GrpcServerOptions options{.host = http.host == "localhost" ? "127.0.0.1" : http.host,
                                    .port = *grpc_port,
                                    .tls_certificate = http.tls_certificate,
                                    .tls_key = http.tls_key,
                                    .version = TESSERA_VERSION,
                                    .keys = std::move(keys),
                                    .post = [&server](auto work) { server.post(std::move(work)); }};
  return kserve::GrpcServer::start(backend, std::move(options));
#else
  (void)backend, (void)server, (void)keys;
  return make_error(
      ErrorCode::invalid_argument,
      "--grpc-port: this build has no gRPC; install libgrpc++-dev, libprotobuf-dev, protobuf-compiler "
      "and protobuf-compiler-grpc, and build again");
#endif
}

std::string FrontFlags::url(const HttpServer& server) const {
  return fmt::format("{}://{}:{}", http.tls_certificate.empty() ? "http" : "https", http.host, server.port());
}

}  // namespace tessera::cli
