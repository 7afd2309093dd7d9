#include "grammar/string_writer.h"

#include <fmt/format.h>

#include "data/utf8.h"

namespace tessera::grammar {

namespace {

// All byte sequences between two of equal length; in UTF-8 their order is that of the characters.
void write_bytes(Grammar& g, int from, int to, std::string_view first, std::string_view last) {
  auto byte = [](std::string_view text) { return static_cast<unsigned char>(text[0]); };
  if (first.size() == 1) return g.edge(from, byte(first), byte(last), to);
  std::string lowest(first.size() - 1, '\x80'), highest(first.size() - 1, '\xBF');
  auto part = [&](unsigned char begin, unsigned char end, std::string_view low, std::string_view high) {
    if (begin > end) return;
    int next = g.new_state();
    g.edge(from, begin, end, next);
    write_bytes(g, next, to, low, high);
  };
  std::string_view low = first.substr(1), high = last.substr(1);
  unsigned char begin = byte(first), end = byte(last);
  if (begin == end) return part(begin, end, low, high);
  if (low != lowest) part(begin, begin, low, highest), ++begin;
  bool cuts_end = high != highest;
  if (cuts_end) --end;
  part(begin, end, lowest, highest);
  if (cuts_end) part(byte(last), byte(last), lowest, high);
}

}  // namespace

void StringWriter::write_plain(int from, int to, CharRange range) {
  for (CharRange length : {CharRange{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xFFFF}, {0x10000, 0x10FFFF}}) {
    CharRange part{std::max(range.first, length.first), std::min(range.last, length.last)};
    if (part.first > part.last) continue;
    std::string first, last;
    data::utf8_append(first, part.first);
    data::utf8_append(last, part.last);
    write_bytes(g_, from, to, first, last);
  }
}

void StringWriter::write_escaped(int from, int to, uint32_t character) {
  constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  size_t at = kShort.find(static_cast<char>(character));
  std::string text =
      at == std::string_view::npos ? fmt::format("\\u{:04x}", character) : std::string{'\\', kLetters[at]};
  g_.skip(g_.literal(from, text), to);
}

int StringWriter::rule_of(const CharSet& set) {
  auto [known, is_new] = rules_.emplace(set, 0);
  if (!is_new) return known->second;
  int rule = g_.new_rule(), from = g_.begin(rule), end = g_.new_state();
  g_.accept(end);
  known->second = rule;
  auto is_special = [](uint32_t c) { return c < 0x20 || c == '"' || c == '\\'; };
  for (CharRange range : set.ranges()) {
    uint32_t first = range.first;
    for (uint32_t c = first; form_ == json && c <= std::min<uint32_t>(range.last, '\\'); ++c) {
      if (!is_special(c)) continue;
      if (first < c) write_plain(from, end, {first, c - 1});
      write_escaped(from, end, c);
      first = c + 1;
    }
    if (first <= range.last) write_plain(from, end, {first, range.last});
  }
  return rule;
}

void StringWriter::write(int from, int to, const Automaton& automaton) {
  const auto& states = automaton.states();
  std::vector<int> places;
  for (size_t i = 0; i < states.size(); ++i) places.push_back(g_.new_state());
  g_.skip(from, places[0]);
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].accepts) g_.skip(places[i], to);
    std::map<int, CharSet> by_target;
    for (const Automaton::Edge& edge : states[i].edges) by_target[edge.to].add(edge.range);
    for (const auto& [target, set] : by_target)
      g_.call(places[i], rule_of(set), places[static_cast<size_t>(target)]);
  }
}

}  // namespace tessera::grammar
