// tessera data pack | inspect
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/result_output.h"
#include "cli/text_options.h"
#include "core/progress.h"
#include "data/pack.h"
#include "data/token_file.h"
#include "data/unigram.h"
#include "data/utf8.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

struct PackArguments {
  TextArguments text;
  std::string tokenizer, out, json;
  double held_out = 0.05;
};

struct InspectArguments {
  std::string prefix, tokenizer, json;
  int64_t document = 0;
};

// ---- pack ----

json to_json(const data::PackedPart& part) {
  return {{"prefix", part.prefix.string()},
          {"documents", part.documents},
          {"tokens", part.tokens},
          {"text_bytes", part.text_bytes},
          {"unigram_entropy_nats", part.unigram_entropy_nats}};
}

void print_part(std::FILE* out, std::string_view label, const data::PackedPart& part) {
  fmt::print(out, "{:<9} {}.bin/.idx: {} documents, {} tokens, {} of text\n", label, part.prefix.string(),
             part.documents, part.tokens, human_count(static_cast<double>(part.text_bytes), "B"));
}

void print_packed(std::FILE* out, const data::PackResult& result) {
  int64_t tokens = result.train.tokens, bytes = result.train.text_bytes;
  print_part(out, "training", result.train);
  if (result.valid) {
    print_part(out, "held out", *result.valid);
    fmt::print(out, "          {}\n",
               result.split_by_document ? "whole documents" : "the last part of each document: there are few");
    tokens += result.valid->tokens;
    bytes += result.valid->text_bytes;
  }
  fmt::print(out, "{:.2f} bytes per token, unigram entropy {:.4f} nats per token\n",
             static_cast<double>(bytes) / static_cast<double>(tokens), result.unigram_entropy_nats);
}

Status pack(const PackArguments& arguments) {
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, data::load_tokenizer(arguments.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(auto text, open_text(arguments.text));
  Progress progress({.label = "pack", .unit = "B", .total = text.bytes()});
  data::PackOptions options{.files = data::pack_files(arguments.out),
                            .held_out = arguments.held_out,
                            .progress = [&](int64_t bytes) { progress.update(bytes); }};
  TESSERA_ASSIGN_OR_RETURN(auto result, data::pack(text, *tokenizer, options));
  progress.finish();
  print_packed(text_output(arguments.json), result);
  json out = {{"train", to_json(result.train)},
              {"valid", result.valid ? to_json(*result.valid) : json()},
              {"split", result.split_by_document ? "documents" : "tails"},
              {"unigram_entropy_nats", result.unigram_entropy_nats},
              {"largest_id", result.largest_id},
              {"vocab_size", tokenizer->vocab_size()},
              {"files", text.num_files()},
              {"text_bytes", text.bytes()},
              {"seconds", seconds_since(start)}};
  return write_json(arguments.json, out);
}

void add_pack(CLI::App& parent) {
  auto arguments = std::make_shared<PackArguments>();
  CLI::App* command =
      parent.add_subcommand("pack", "Turn text into token files for training (Megatron .bin/.idx)");
  command->add_option("--tokenizer", arguments->tokenizer, "A model's folder or a tokenizer file")->required();
  add_text_arguments(*command, arguments->text);
  command
      ->add_option("--out", arguments->out,
                   "PREFIX: writes PREFIX-train and PREFIX-valid; a folder: train and valid in it")
      ->required();
  command->add_option("--held-out", arguments->held_out, "Share of the text that is held out; 0 for none")
      ->capture_default_str();
  command->add_option("--json", arguments->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera data pack --tokenizer runs/mine --data books.txt --out runs/mine/data/\n"
      "  tessera data pack --tokenizer runs/code --data src/ --max-bytes 20000000 --held-out 0.02 --out "
      "data/code\n"
      "  tessera data pack --tokenizer models/qwen3 --data stories.txt --document-separator '<|endoftext|>' "
      "--out data/stories");
  command->callback([arguments] {
    if (Status status = pack(*arguments); !status) report_error(status.error());
  });
}

// ---- inspect ----

struct Summary {
  int64_t largest_id = -1;
  double entropy = 0;
  int64_t shortest = 0, median = 0, longest = 0;  // documents, in tokens
};

Summary summarize(const data::TokenFile& file) {
  Summary summary;
  auto counts = file.counts_by_id();
  summary.largest_id = static_cast<int64_t>(counts.size()) - 1;
  summary.entropy = data::unigram_entropy(counts);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < file.num_documents(); ++i) lengths.push_back(file.length(i));
  if (lengths.empty()) return summary;
  std::sort(lengths.begin(), lengths.end());
  summary.shortest = lengths.front();
  summary.median = lengths[lengths.size() / 2];
  summary.longest = lengths.back();
  return summary;
}

// The first tokens of a document as text, or as ids without a tokenizer.
Result<std::string> opening(const data::TokenFile& file, const InspectArguments& arguments) {
  if (file.num_documents() == 0) return std::string();
  if (arguments.document < 0 || arguments.document >= file.num_documents())
    return invalid("document {} of {}: there are {}", arguments.document, arguments.prefix,
                   file.num_documents());
  std::vector<int64_t> ids(static_cast<size_t>(std::min<int64_t>(64, file.length(arguments.document))));
  file.read(arguments.document, 0, ids);
  if (arguments.tokenizer.empty()) return fmt::format("{}", fmt::join(ids, " "));
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, data::load_tokenizer(arguments.tokenizer));
  return data::utf8_lossy(tokenizer->decode(ids, false));
}

Status inspect(const InspectArguments& arguments) {
  TESSERA_ASSIGN_OR_RETURN(auto file, data::TokenFile::open(arguments.prefix));
  TESSERA_ASSIGN_OR_RETURN(std::string start, opening(file, arguments));
  Summary summary = summarize(file);
  const char* type = file.type() == data::TokenType::uint16 ? "uint16" : "int32";
  std::FILE* out = text_output(arguments.json);
  fmt::print(out, "{}: {} documents, {} tokens of {}, largest id {}\n", arguments.prefix, file.num_documents(),
             file.num_tokens(), type, summary.largest_id);
  fmt::print(out, "documents have {} to {} tokens, half of them {} or more\n", summary.shortest,
             summary.longest, summary.median);
  fmt::print(out, "unigram entropy {:.4f} nats per token\ndocument {} begins: {}\n", summary.entropy,
             arguments.document, start);
  return write_json(arguments.json, {{"prefix", arguments.prefix},
                                     {"documents", file.num_documents()},
                                     {"tokens", file.num_tokens()},
                                     {"type", type},
                                     {"largest_id", summary.largest_id},
                                     {"document_tokens_min", summary.shortest},
                                     {"document_tokens_median", summary.median},
                                     {"document_tokens_max", summary.longest},
                                     {"unigram_entropy_nats", summary.entropy},
                                     {"document", arguments.document},
                                     {"opening", start}});
}

void add_inspect(CLI::App& parent) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = parent.add_subcommand("inspect", "Check a token file and say what is in it");
  command->add_option("PREFIX", arguments->prefix, "Path of the files without .bin and .idx")->required();
  command->add_option("--tokenizer", arguments->tokenizer, "Show text instead of ids");
  command->add_option("--document", arguments->document, "The document whose beginning is shown")
      ->capture_default_str();
  command->add_option("--json", arguments->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera data inspect runs/mine/data/train\n"
      "  tessera data inspect data/code-valid --tokenizer runs/code --document 3");
  command->callback([arguments] {
    if (Status status = inspect(*arguments); !status) report_error(status.error());
  });
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* command = app.add_subcommand("data", "Turn text into token files; look into them");
  command->require_subcommand(1);
  add_pack(*command);
  add_inspect(*command);
}

}  // namespace tessera::cli
