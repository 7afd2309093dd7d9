#include "data/pack.h"

#include "core/file.h"
#include "data/permutation.h"
#include "data/token_file.h"
#include "data/unigram.h"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

// Fewer documents held out than this would say little about the others.
constexpr double kLeastHeldOutDocuments = 8;
constexpr uint64_t kHeldOutKey = 0x68656C64;

class Part {
 public:
  static Result<Part> create(const fs::path& prefix, int64_t vocab_size) {
    TESSERA_ASSIGN_OR_RETURN(auto writer, TokenFileWriter::create(prefix, vocab_size));
    return Part(prefix, vocab_size, std::move(writer));
  }

  Status add(std::string_view text, const std::vector<int64_t>& ids) {
    TESSERA_RETURN_IF_ERROR(writer_.add_document(ids));
    for (int64_t id : ids) ++counts_[static_cast<size_t>(id)];
    bytes_ += static_cast<int64_t>(text.size());
    return {};
  }
  Status finish() { return writer_.finish(); }
  bool empty() const { return writer_.num_tokens() == 0; }
  const std::vector<int64_t>& counts() const { return counts_; }
  PackedPart report() const {
    return {prefix_, writer_.num_documents(), writer_.num_tokens(), bytes_, unigram_entropy(counts_)};
  }

 private:
  Part(fs::path prefix, int64_t vocab_size, TokenFileWriter writer)
      : prefix_(std::move(prefix)), writer_(std::move(writer)), counts_(static_cast<size_t>(vocab_size)) {}
  fs::path prefix_;
  TokenFileWriter writer_;
  std::vector<int64_t> counts_;
  int64_t bytes_ = 0;
};

bool is_held_out(int64_t document, double share) {
  constexpr double kRange = 18446744073709551616.0;  // 2^64
  return static_cast<double>(mix(kHeldOutKey, static_cast<uint64_t>(document))) < share * kRange;
}

// Where the held-out tail of a document begins: at a line when one is near, else between characters.
size_t tail_of(std::string_view text, double share) {
  auto cut = static_cast<size_t>(static_cast<double>(text.size()) * (1 - share));
  size_t line = text.find('\n', cut);
  if (line != std::string_view::npos && line - cut < (text.size() - cut) / 2) return line + 1;
  while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
  return cut;
}

// One call of pack(): hands documents and their parts to the two files.
class Packer {
 public:
  Packer(const Tokenizer& tokenizer, const PackOptions& options, bool by_document, Part train,
         std::optional<Part> valid)
      : tokenizer_(tokenizer),
        options_(options),
        by_document_(by_document),
        train_(std::move(train)),
        valid_(std::move(valid)) {}

  Status add(std::string_view document) {
    int64_t number = num_documents_++;
    if (!valid_) return add_to(train_, document, true);
    if (by_document_) return add_to(is_held_out(number, options_.held_out) ? *valid_ : train_, document, true);
    size_t cut = tail_of(document, options_.held_out);
    TESSERA_RETURN_IF_ERROR(add_to(train_, document.substr(0, cut), cut == document.size()));
    return add_to(*valid_, document.substr(cut), true);
  }

  Result<PackResult> finish() {
    if (train_.empty() || (valid_ && valid_->empty()))
      return invalid("too little text: the {} part of it is empty; give more text or another --held-out",
                     train_.empty() ? "training" : "held-out");
    if (valid_) TESSERA_RETURN_IF_ERROR(valid_->finish());
    TESSERA_RETURN_IF_ERROR(train_.finish());
    PackResult result{.train = train_.report(), .split_by_document = by_document_};
    std::vector<int64_t> counts = train_.counts();
    if (valid_) {
      result.valid = valid_->report();
      for (size_t id = 0; id < counts.size(); ++id) counts[id] += valid_->counts()[id];
    }
    result.unigram_entropy_nats = unigram_entropy(counts);
    for (size_t id = 0; id < counts.size(); ++id)
      if (counts[id] > 0) result.largest_id = static_cast<int64_t>(id);
    return result;
  }

 private:
  Status add_to(Part& part, std::string_view text, bool is_end) {
    if (text.empty()) return {};
    EncodeOptions encoding{.parse_special_tokens = false};
    if (options_.progress)
      encoding.progress = [&](size_t done) { options_.progress(bytes_ + static_cast<int64_t>(done)); };
    std::vector<int64_t> ids = tokenizer_.encode(text, encoding);
    if (is_end && tokenizer_.eos_id()) ids.push_back(*tokenizer_.eos_id());
    bytes_ += static_cast<int64_t>(text.size());
    if (options_.progress) options_.progress(bytes_);
    return part.add(text, ids);
  }

  const Tokenizer& tokenizer_;
  const PackOptions& options_;
  bool by_document_;
  Part train_;
  std::optional<Part> valid_;
  int64_t num_documents_ = 0, bytes_ = 0;
};

}  // namespace

PackFiles pack_files(const fs::path& prefix) {
  std::error_code ignored;
  bool is_folder = prefix.filename().empty() || fs::is_directory(prefix, ignored);
  std::string start = is_folder ? (prefix / "").string() : prefix.string() + "-";
  return {start + "train", start + "valid"};
}

Result<PackResult> pack(const TextFiles& text, const Tokenizer& tokenizer, const PackOptions& options) {
  if (!(options.held_out >= 0 && options.held_out < 1))
    return invalid("a held-out share of {}, expected 0 to below 1", options.held_out);
  std::error_code failure;
  if (auto folder = options.files.train.parent_path(); !folder.empty()) fs::create_directories(folder, failure);
  if (failure) return system_error("create", options.files.train.parent_path(), failure.value());

  TESSERA_ASSIGN_OR_RETURN(Part train, Part::create(options.files.train, tokenizer.vocab_size()));
  std::optional<Part> valid;
  if (options.held_out > 0) {
    TESSERA_ASSIGN_OR_RETURN(Part held_out, Part::create(options.files.valid, tokenizer.vocab_size()));
    valid.emplace(std::move(held_out));
  }
  bool by_document = options.held_out * static_cast<double>(text.num_documents()) >= kLeastHeldOutDocuments;
  Packer packer(tokenizer, options, by_document, std::move(train), std::move(valid));
  TESSERA_RETURN_IF_ERROR(
      text.for_each_document([&](std::string_view document) { return packer.add(document); }));
  return packer.finish();
}

}  // namespace tessera::data
