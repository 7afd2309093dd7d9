// tessera tokenizer train | encode
#include "data/tokenizer.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"
#include "cli/result_output.h"
#include "cli/text_options.h"
#include "core/file.h"
#include "core/progress.h"
#include "data/bpe_trainer.h"
#include "data/utf8.h"

namespace tessera::cli {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

struct TrainOptions {
  TextArguments text;
  int64_t vocab = 4096;
  std::string out, json;
};

struct EncodeArguments {
  std::string tokenizer, text, file, json;
  bool has_text = false, decode = false, special = false, lines = false;
};

// ---- train ----

Status count_words(const data::TextFiles& text, data::BpeTrainer& trainer) {
  Progress progress({.label = "words", .unit = "B", .total = text.bytes()});
  int64_t before = 0;
  TESSERA_RETURN_IF_ERROR(text.for_each_document([&](std::string_view document) {
    trainer.add_text(document, [&](int64_t done, int64_t) { progress.update(before + done); });
    before += static_cast<int64_t>(document.size());
    return Status();
  }));
  progress.finish();
  return {};
}

Result<data::TrainedTokenizer> learn_merges(const data::BpeTrainer& trainer, int64_t vocab) {
  Progress progress({.label = "merges", .unit = "merges", .total = vocab});
  TESSERA_ASSIGN_OR_RETURN(auto trained, trainer.train([&](int64_t done, int64_t) { progress.update(done); }));
  progress.finish();
  return trained;
}

Status write_tokenizer(const fs::path& folder, const data::TrainedTokenizer& trained) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) return system_error("create", folder, failure.value());
  TESSERA_RETURN_IF_ERROR(write_file_atomically(folder / "tokenizer.json", trained.tokenizer_json));
  return write_file_atomically(folder / "tokenizer_config.json", trained.tokenizer_config_json);
}

Status train(const TrainOptions& options) {
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(auto trainer, data::BpeTrainer::create({.vocab_size = options.vocab}));
  TESSERA_ASSIGN_OR_RETURN(auto text, open_text(options.text));
  TESSERA_RETURN_IF_ERROR(count_words(text, trainer));
  TESSERA_ASSIGN_OR_RETURN(auto trained, learn_merges(trainer, options.vocab));
  TESSERA_RETURN_IF_ERROR(write_tokenizer(options.out, trained));
  std::string file = (fs::path(options.out) / "tokenizer.json").string();
  double seconds = seconds_since(start);
  fmt::print(text_output(options.json), "{}: {} tokens from {} in {} files, {} distinct words, {}\n", file,
             trained.vocab_size, human_count(static_cast<double>(text.bytes()), "B"), text.num_files(),
             trained.distinct_words, human_duration(seconds));
  if (trained.vocab_size < options.vocab)
    fmt::print(stderr, "warning: the text has only enough repeated pairs for {} tokens of {}\n",
               trained.vocab_size, options.vocab);
  return write_json(options.json, {{"tokenizer", file},
                                   {"vocab_size", trained.vocab_size},
                                   {"text_bytes", text.bytes()},
                                   {"files", text.num_files()},
                                   {"documents", text.num_documents()},
                                   {"distinct_words", trained.distinct_words},
                                   {"seconds", seconds}});
}

void add_tokenizer_train(CLI::App& parent) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = parent.add_subcommand("train", "Learn a byte-level BPE vocabulary from text");
  add_text_arguments(*command, options->text);
  command->add_option("--vocab", options->vocab, "Tokens, the 256 bytes and <|endoftext|> included")
      ->capture_default_str();
  command->add_option("--out", options->out, "Folder for tokenizer.json and tokenizer_config.json")->required();
  command->add_option("--json", options->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera tokenizer train --data books.txt --vocab 4096 --out runs/mine\n"
      "  tessera tokenizer train --data src/ docs/ --max-bytes 20000000 --vocab 32000 --out runs/code");
  command->callback([options] {
    if (Status status = train(*options); !status) report_error(status.error());
  });
}

// ---- encode ----

Result<std::string> input_text(const EncodeArguments& arguments) {
  if (arguments.has_text && !arguments.file.empty()) return invalid("give TEXT or --file, not both");
  if (arguments.has_text) return arguments.text;
  if (!arguments.file.empty() && arguments.file != "-") return read_file(arguments.file);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

Result<std::vector<int64_t>> parse_ids(std::string text) {
  for (char& c : text)
    if (c == ',' || c == '[' || c == ']') c = ' ';
  std::vector<int64_t> ids;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    int64_t id = 0;
    auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (failure != std::errc() || end != word.data() + word.size())
      return invalid("'{}' is no token id; --decode takes numbers", word);
    ids.push_back(id);
  }
  return ids;
}

Status decode(const data::Tokenizer& tokenizer, const EncodeArguments& arguments, const std::string& input) {
  TESSERA_ASSIGN_OR_RETURN(auto ids, parse_ids(input));
  for (int64_t id : ids)
    if (id < 0 || id >= tokenizer.vocab_size())
      return invalid("token id {} is outside the vocabulary of {}", id, tokenizer.vocab_size());
  std::string text = tokenizer.decode(ids, !arguments.special);
  if (arguments.json != "-") fmt::print("{}\n", text);
  return write_json(arguments.json, {{"ids", ids}, {"text", text}});
}

// Each line of the input is a JSON string; each line of the output the array of its ids.
Status encode_lines(const data::Tokenizer& tokenizer, const EncodeArguments& arguments,
                    const std::string& input) {
  std::istringstream lines(input);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    json value = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!value.is_string()) return invalid("line {} is no JSON string", number);
    auto ids = tokenizer.encode(value.get<std::string>(), {.add_special_tokens = arguments.special});
    fmt::print("[{}]\n", fmt::join(ids, ","));
  }
  return {};
}

Status encode(const EncodeArguments& arguments) {
  TESSERA_ASSIGN_OR_RETURN(auto tokenizer, data::load_tokenizer(arguments.tokenizer));
  TESSERA_ASSIGN_OR_RETURN(std::string input, input_text(arguments));
  if (arguments.decode) return decode(*tokenizer, arguments, input);
  if (arguments.lines) return encode_lines(*tokenizer, arguments, input);
  auto ids = tokenizer->encode(input, {.add_special_tokens = arguments.special});
  if (arguments.json != "-") fmt::print("{}\n", fmt::join(ids, " "));
  json tokens = json::array();
  for (int64_t id : ids) tokens.push_back(std::string(tokenizer->bytes_of(id)));
  return write_json(arguments.json, {{"ids", ids},
                                     {"tokens", tokens},
                                     {"text_bytes", input.size()},
                                     {"vocab_size", tokenizer->vocab_size()}});
}

void add_encode(CLI::App& parent) {
  auto arguments = std::make_shared<EncodeArguments>();
  CLI::App* command = parent.add_subcommand("encode", "Turn text into token ids, or ids into text");
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "A model's folder, a tokenizer.json, or a llama2.c tokenizer (.bin)")
      ->required();
  CLI::Option* text =
      command->add_option("TEXT", arguments->text, "The text; without it --file or standard input");
  command->add_option("--file", arguments->file, "Read the text from a file; - for standard input");
  command->add_flag("--decode", arguments->decode, "The input is ids; print their text");
  command->add_flag("--special", arguments->special,
                    "Put in what the tokenizer puts around prompts; with --decode show special tokens");
  command->add_flag("--lines", arguments->lines, "Each input line is a JSON string, each output line its ids");
  command->add_option("--json", arguments->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera tokenizer encode --tokenizer models/qwen3 \"Once upon a time\"\n"
      "  tessera tokenizer encode --tokenizer models/qwen3 --decode \"9707 1879\"\n"
      "  tessera tokenizer encode --tokenizer tokenizer.json --file book.txt --json -");
  command->callback([arguments, text] {
    arguments->has_text = text->count() > 0;
    if (Status status = encode(*arguments); !status) report_error(status.error());
  });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenizer", "Learn vocabularies; turn text into tokens and back");
  command->require_subcommand(1);
  add_tokenizer_train(*command);
  add_encode(*command);
}

}  // namespace tessera::cli
