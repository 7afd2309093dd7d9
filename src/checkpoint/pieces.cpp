#include "checkpoint/pieces.h"

namespace tessera {

const char* to_string(StateKind kind) {
  switch (kind) {
    case StateKind::master:
      return "master";
    case StateKind::moment1:
      return "exp_avg";
    case StateKind::moment2:
      return "exp_avg_sq";
  }
  return "unknown";
}

}  // namespace tessera
