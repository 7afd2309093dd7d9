#include "data/text_files.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "core/file.h"
#include "core/hash.h"
#include "data/utf8.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kExtensions = {".h", ".hpp", ".cpp", ".py", ".txt", ".md"};

bool is_text_name(const fs::path& path) {
  auto extension = path.extension().string();
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

uint64_t hash_of(const std::string& name) {
  return hash64(std::as_bytes(std::span(name)));
}

// The longest part of `text` up to `bytes` that ends with a line, or at least with a character.
std::string_view cut_at_line(std::string_view text, size_t bytes) {
  if (bytes >= text.size()) return text;
  size_t line = text.rfind('\n', bytes - 1);
  if (line != std::string_view::npos) return text.substr(0, line + 1);
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

}  // namespace

Result<TextFiles> TextFiles::open(const std::vector<fs::path>& inputs, TextOptions options) {
  TextFiles text;
  text.options_ = std::move(options);
  std::vector<File> files;
  if (inputs.empty()) return invalid("no text was given");
  for (const auto& input : inputs) {
    std::error_code ignored;
    TESSERA_RETURN_IF_ERROR(fs::is_directory(input, ignored) ? add_folder(input, files)
                                                             : add_file(input, files));
  }
  text.choose_part(std::move(files));
  for (const File& file : text.files_) {
    TESSERA_ASSIGN_OR_RETURN(std::string content, text.read_checked(file));
    text.bytes_ += static_cast<int64_t>(content.size());
    text.num_documents_ += static_cast<int64_t>(text.documents_of(content).size());
  }
  if (text.num_documents_ == 0) return invalid("{}: has separators and no text", inputs.front().string());
  return text;
}

Status TextFiles::add_file(const fs::path& path, std::vector<File>& files) {
  std::error_code failure;
  auto bytes = fs::file_size(path, failure);
  if (failure) return system_error("open", path, failure.value());
  if (bytes == 0) return invalid("{}: is empty, expected text", path.string());
  files.push_back({path, path.filename().string(), static_cast<int64_t>(bytes)});
  return {};
}

Status TextFiles::add_folder(const fs::path& folder, std::vector<File>& files) {
  std::error_code failure;
  size_t before = files.size();
  auto walk = fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied, failure);
  for (; !failure && walk != fs::recursive_directory_iterator(); walk.increment(failure)) {
    std::error_code ignored;
    if (!walk->is_regular_file(ignored) || !is_text_name(walk->path())) continue;
    auto bytes = walk->file_size(ignored);
    if (ignored || bytes == 0) continue;
    files.push_back(
        {walk->path(), walk->path().lexically_relative(folder).generic_string(), static_cast<int64_t>(bytes)});
  }
  if (failure) return system_error("walk through", folder, failure.value());
  if (files.size() == before)
    return invalid("{}: no text in it; files ending in {} are read", folder.string(),
                   fmt::join(kExtensions, ", "));
  std::sort(files.begin() + static_cast<int64_t>(before), files.end(),
            [](const File& a, const File& b) { return a.name < b.name; });
  return {};
}

// Takes files in order of their hashes until max_bytes are reached, then puts them back in order.
void TextFiles::choose_part(std::vector<File> files) {
  int64_t total = 0;
  for (const File& file : files) total += file.bytes;
  if (options_.max_bytes <= 0 || total <= options_.max_bytes) {
    files_ = std::move(files);
    return;
  }
  std::vector<size_t> order(files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return hash_of(files[a].name) < hash_of(files[b].name); });
  int64_t left = options_.max_bytes;
  size_t taken = 0;
  for (; taken < order.size() && left > 0; ++taken) {
    File& file = files[order[taken]];
    file.bytes = std::min(file.bytes, left);
    left -= file.bytes;
  }
  order.resize(taken);
  std::sort(order.begin(), order.end());
  for (size_t index : order) files_.push_back(std::move(files[index]));
}

Result<std::string> TextFiles::read_checked(const File& file) const {
  TESSERA_ASSIGN_OR_RETURN(std::string content, read_file(file.path));
  size_t valid = utf8_valid_prefix(content);
  if (valid < content.size())
    return invalid("{}: byte {} (0x{:02X}) is no UTF-8; convert the file, as in: iconv -f LATIN1 -t UTF-8",
                   file.path.string(), valid, static_cast<unsigned char>(content[valid]));
  content.resize(cut_at_line(content, static_cast<size_t>(file.bytes)).size());
  return content;
}

std::vector<std::string_view> TextFiles::documents_of(std::string_view text) const {
  std::vector<std::string_view> documents;
  const std::string& separator = options_.separator;
  while (!text.empty()) {
    size_t end = separator.empty() ? std::string_view::npos : text.find(separator);
    std::string_view document = text.substr(0, end);
    if (!document.empty()) documents.push_back(document);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + separator.size());
  }
  return documents;
}

Status TextFiles::for_each_document(const Visit& visit) const {
  for (const File& file : files_) {
    TESSERA_ASSIGN_OR_RETURN(std::string content, read_checked(file));
    for (std::string_view document : documents_of(content)) TESSERA_RETURN_IF_ERROR(visit(document));
  }
  return {};
}

}  // namespace tessera::data
