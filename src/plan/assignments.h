// "key=value,key=value" on the command line, over numbers of a struct. Errors: a part without '=', an unknown
// key (the nearest is offered), a value that is no number or out of range. Threads: reentrant.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan {

struct NumberOption {
  const char* key;
  double* into;
  double least = 0, most = 1e300;
};

// `what` names the option in messages, such as "--site".
Status assign_numbers(const std::string& what, const std::string& text, const std::vector<NumberOption>& keys);

// "5GW", "120 kW", "2.5e9W" -> 5e9; "5" alone has no unit and is refused. `units` maps a unit to its factor.
struct UnitName {
  const char* name;
  double factor;
};
Result<double> parse_with_unit(const std::string& what, const std::string& text,
                               const std::vector<UnitName>& units);

}  // namespace tessera::plan
