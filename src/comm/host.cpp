#include "comm/host.h"

#include <unistd.h>

#include <array>
#include <filesystem>

#include "core/file.h"

namespace tessera::comm {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  return name.data();
}

std::string host_identity() {
  Result<std::string> boot = read_file("/proc/sys/kernel/random/boot_id");
  std::error_code failed;
  std::string network = std::filesystem::read_symlink("/proc/self/ns/net", failed).string();
  // Unknown means alone: then everything goes over TCP.
  if (!boot || failed) return fmt::format("{}/{}", host_name(), ::getpid());
  return fmt::format("{}/{}", boot->substr(0, boot->find('\n')), network);
}

}  // namespace tessera::comm
