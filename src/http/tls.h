// The certificate of a server and the protocols it speaks. Internal to http.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "core/result.h"

namespace tessera {

// PEM files: the certificate first in its chain, and its key without a password. TLS 1.2 and later.
// Errors: not_found for a file that is not there, invalid_argument for one that is no certificate or key, and
// for a key that belongs to another certificate.
Result<std::unique_ptr<boost::asio::ssl::context>> load_tls(const std::string& certificate,
                                                            const std::string& key);

}  // namespace tessera
