// Filters of templates, with Jinja's results; tojson is Hugging Face's.
#include "chat/filters.h"

#include "chat/builtin_table.h"
#include "chat/characters.h"
#include "chat/format.h"

namespace tessera::chat {

namespace {

const BuiltinTable& filters() {
  static const BuiltinTable table = [] {
    BuiltinTable out;
    out.add("abs", {}, [](const Value& it) -> Value { return absolute(it); });
    out.add("attr", {"name"}, [](Env& env, const Value& it, const Given& given) -> Value {
      return attribute(env, it, given.text(0));
    });
    out.add("batch", {"linecount", "fill_with"},
            [](const Value& it, const Given& given) -> Value { return batch(it, given); });
    out.add("capitalize", {}, [](Env& env, const Value& it) -> Value { return capitalize(text_of(env, it)); });
    out.add("center", {"width"}, [](Env& env, const Value& it, const Given& given) -> Value {
      return padded(env.budget, text_of(env, it), given.integer(0, 80), true, true);
    });
    out.add({"default", "d"}, {"default_value", "boolean"}, [](const Value& it, const Given& given) -> Value {
      bool missing = it.is_undefined() || (given.flag(1) && !it.truth());
      return missing ? given.value(0, "") : it;
    });
    out.add("dictsort", {"case_sensitive", "by", "reverse"}, dict_sorted);
    out.add({"escape", "e"}, {}, [](Env& env, const Value& it) -> Value {
      return it.is_markup() ? it : Value::markup(escaped(text_of(env, it)));
    });
    out.add("first", {}, [](const Value& it) -> Value { return end_of(it, false); });
    out.add("last", {}, [](const Value& it) -> Value { return end_of(it, true); });
    out.add("float", {"default"}, [](const Value& it, const Given& given) -> Value {
      auto number = to_real(it);
      return number ? Value(*number) : given.value(0, 0.0);
    });
    out.add("format", {}, [](Env& env, const Value& it, const Given& given) -> Value {
      return format_percent(env, text_of(env, it), given.raw());
    });
    out.add("indent", {"width", "first", "blank"}, indent);
    out.add("int", {"default", "base"},
            [](const Value& it, const Given& given) -> Value { return to_integer(it, given); });
    out.add("items", {}, [](const Value& it) -> Value { return dict_items(it); });
    out.add("join", {"d", "attribute"}, join);
    out.add({"length", "count"}, {}, [](const Value& it) -> Value { return length_of(it); });
    out.add("list", {}, [](const Value& it) -> Value { return Value(it.elements()); });
    out.add("lower", {}, [](Env& env, const Value& it) -> Value { return lower(text_of(env, it)); });
    out.add("upper", {}, [](Env& env, const Value& it) -> Value { return upper(text_of(env, it)); });
    out.add("map", {}, map_elements);
    out.add("max", {"case_sensitive", "attribute"}, [](Env& env, const Value& it, const Given& given) -> Value {
      return extreme(env, it, given, true);
    });
    out.add("min", {"case_sensitive", "attribute"}, [](Env& env, const Value& it, const Given& given) -> Value {
      return extreme(env, it, given, false);
    });
    out.add("reject", {}, [](Env& env, const Value& it, const Given& given) -> Value {
      return select(env, it, given, false, false);
    });
    out.add("rejectattr", {}, [](Env& env, const Value& it, const Given& given) -> Value {
      return select(env, it, given, true, false);
    });
    out.add("select", {}, [](Env& env, const Value& it, const Given& given) -> Value {
      return select(env, it, given, false, true);
    });
    out.add("selectattr", {}, [](Env& env, const Value& it, const Given& given) -> Value {
      return select(env, it, given, true, true);
    });
    out.add("replace", {"old", "new", "count"}, [](Env& env, const Value& it, const Given& given) -> Value {
      int64_t most = is_given(given, 2) ? given.integer(2, -1) : -1;
      return replace_within(env.budget, text_of(env, it), text_of(env, given.required(0)),
                            text_of(env, given.required(1)), most);
    });
    out.add("reverse", {}, [](const Value& it) -> Value { return reversed(it); });
    out.add("round", {"precision", "method"},
            [](const Value& it, const Given& given) -> Value { return rounded(it, given); });
    out.add("safe", {}, [](Env& env, const Value& it) -> Value { return Value::markup(text_of(env, it)); });
    out.add("string", {},
            [](Env& env, const Value& it) -> Value { return it.is_markup() ? it : Value(text_of(env, it)); });
    out.add("sort", {"reverse", "case_sensitive", "attribute"}, sorted);
    out.add("sum", {"attribute", "start"}, sum);
    out.add("title", {}, [](Env& env, const Value& it) -> Value { return title_words(text_of(env, it)); });
    out.add("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, json_text);
    out.add("trim", {"chars"}, [](Env& env, const Value& it, const Given& given) -> Value {
      std::optional<std::string_view> what;
      if (is_given(given, 0)) what = given.text(0);
      return strip_right(strip_left(text_of(env, it), what), what);
    });
    out.add("truncate", {"length", "killwords", "end", "leeway"}, truncate);
    out.add("unique", {"case_sensitive", "attribute"}, unique);
    return out;
  }();
  return table;
}

}  // namespace

const Builtin* find_filter(const std::string& name) {
  return filters().find(name);
}

}  // namespace tessera::chat
