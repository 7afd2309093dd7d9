#include "http/tls.h"

#include <openssl/err.h>

#include <filesystem>

namespace tessera {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

namespace {

Status check_given(const char* option, const std::string& file) {
  if (file.empty()) return invalid("TLS needs both --tls-cert and --tls-key; {} is missing", option);
  std::error_code ignored;
  if (std::filesystem::is_regular_file(file, ignored)) return {};
  return make_error(ErrorCode::not_found, "{} {}: there is no such file", option, file);
}

// A key with a password would make OpenSSL ask for it on the terminal.
int no_password(char*, int, int, void*) {
  return 0;
}

}  // namespace

Result<std::unique_ptr<ssl::context>> load_tls(const std::string& certificate, const std::string& key) {
  TESSERA_RETURN_IF_ERROR(check_given("--tls-cert", certificate));
  TESSERA_RETURN_IF_ERROR(check_given("--tls-key", key));
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_default_passwd_cb(native, no_password);
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(native, certificate.c_str()) != 1)
    return invalid("--tls-cert {}: no certificate in PEM form ({})", certificate,
                   ERR_reason_error_string(ERR_peek_last_error()));
  if (SSL_CTX_use_PrivateKey_file(native, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    bool other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;
    if (other) return invalid("--tls-key {}: it belongs to another certificate than {}", key, certificate);
    return invalid("--tls-key {}: no private key in PEM form without a password ({})", key,
                   ERR_reason_error_string(ERR_peek_last_error()));
  }
  return context;
}

}  // namespace tessera
