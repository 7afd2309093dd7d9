#include "recsys_roles/copy_file.h"

#include <filesystem>
#include <fstream>

#include "comm/socket.h"

namespace tessera::recsys_roles {
namespace {

constexpr size_t kPiece = 8 << 20;  // bytes in one message

}  // namespace

CopyFile::CopyFile()
    : path_((std::filesystem::temp_directory_path() / ("tessera-copy-" + comm::random_name())).string()) {}
CopyFile::~CopyFile() {
  std::error_code failure;
  std::filesystem::remove(path_, failure);
}

Result<uint64_t> bytes_of_file(const std::string& path) {
  std::error_code failure;
  const uint64_t bytes = std::filesystem::file_size(path, failure);
  if (failure) return make_error(ErrorCode::data_loss, "{}: {}", path, failure.message());
  return bytes;
}

Message read_piece(const std::string& path, uint64_t offset) {
  std::vector<char> piece(kPiece);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
  piece.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  return MessageWriter().array(piece).take();
}

Status fetch_file(Caller& from, const std::function<Message(uint64_t offset)>& request, uint64_t bytes,
                  const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  for (uint64_t offset = 0; offset < bytes;) {
    TESSERA_ASSIGN_OR_RETURN(Message answer, from.call(request(offset)));
    MessageReader reader(answer);
    const auto piece = reader.array<char>();
    TESSERA_RETURN_IF_ERROR(reader.end());
    if (piece.empty()) return make_error(ErrorCode::data_loss, "the copy of the rows ends at byte {}", offset);
    file.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (!file) return make_error(ErrorCode::resource_exhausted, "{}: no room for a copy of the rows", path);
    offset += piece.size();
  }
  file.close();
  if (!file) return make_error(ErrorCode::resource_exhausted, "{}: no room for a copy of the rows", path);
  return {};
}

}  // namespace tessera::recsys_roles
