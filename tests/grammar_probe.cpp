// Compiles grammars for tests/grammar_test.py. Each line of the standard input is a JSON object with `schema`
// or `regex`, `texts` (are they taken?), `samples` (so many random texts are made) and `seed`; each line of the
// output one with `taken`, `samples` and `seconds`, or `error`.
#include <iostream>
#include <random>

#include "core/clock.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"

using namespace tessera;
using grammar::Matcher;

namespace {

bool takes(Matcher& matcher, const std::string& text) {
  int at = matcher.start();
  for (size_t i = 0; i < text.size() && at != Matcher::kDead; ++i)
    at = matcher.step(at, static_cast<unsigned char>(text[i]));
  return at != Matcher::kDead && matcher.accepts(at);
}

// A walk that ends by `most` bytes where it can.
std::string sample(Matcher& matcher, std::mt19937_64& random, int64_t most) {
  std::string text;
  int at = matcher.start();
  most = std::max(most, matcher.distance(at));
  while (true) {
    std::vector<std::pair<unsigned char, int>> next;
    for (int byte = 0; byte < 256; ++byte) {
      int to = matcher.step(at, static_cast<unsigned char>(byte));
      if (to != Matcher::kDead && matcher.distance(to) < most - std::ssize(text)) next.emplace_back(byte, to);
    }
    if (matcher.accepts(at) && (next.empty() || random() % 4 == 0)) return text;
    if (next.empty()) return text + "<stuck>";
    auto [byte, to] = next[random() % next.size()];
    text += static_cast<char>(byte);
    at = to;
  }
}

Result<chat::Dict> run(const std::string& line) {
  TESSERA_ASSIGN_OR_RETURN(chat::Value job, chat::parse_json(line));
  const chat::Value *schema = job.dict()->find("schema"), *regex = job.dict()->find("regex");
  auto begin = Clock::now();
  auto made = regex ? grammar::text_of_regex(*regex->text()) : grammar::json_of_schema(*schema);
  if (!made) return made.error();
  chat::Dict out;
  out.set("seconds", seconds_since(begin));
  Matcher matcher(*made);
  std::mt19937_64 random(static_cast<uint64_t>(job.dict()->find("seed")->integer()));
  std::vector<chat::Value> samples, taken;
  for (int64_t i = 0; i < job.dict()->find("samples")->integer(); ++i)
    samples.emplace_back(sample(matcher, random, 10 + static_cast<int64_t>(random() % 200)));
  for (const chat::Value& text : job.dict()->find("texts")->sequence()->items)
    taken.emplace_back(takes(matcher, *text.text()));
  out.set("samples", std::move(samples));
  out.set("taken", std::move(taken));
  return out;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    auto result = run(line);
    chat::Dict answer;
    if (result)
      answer = std::move(*result);
    else
      answer.set("error", result.error().message);
    std::cout << chat::to_json(chat::Value(std::move(answer)), {.ensure_ascii = true}) << std::endl;
  }
}
