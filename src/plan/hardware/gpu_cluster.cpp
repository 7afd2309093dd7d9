#include "plan/hardware/gpu_cluster.h"

namespace tessera::plan {

const char* to_string(MathFormat format) {
  switch (format) {
    case MathFormat::float32:
      return "float32";
    case MathFormat::tf32:
      return "tf32";
    case MathFormat::bf16:
      return "bf16";
    case MathFormat::fp8:
      return "fp8";
    case MathFormat::fp4:
      return "fp4";
  }
  return "unknown";
}

double bytes_per_element(MathFormat format) {
  switch (format) {
    case MathFormat::float32:
    case MathFormat::tf32:
      return 4;
    case MathFormat::bf16:
      return 2;
    case MathFormat::fp8:
      return 1;
    case MathFormat::fp4:
      return 0.5;
  }
  return 2;
}

// A device without a narrow format multiplies in the next wider one: what frameworks fall back to.
double Device::peak(MathFormat format) const {
  switch (format) {
    case MathFormat::float32:
      return peak_float32;
    case MathFormat::tf32:
      return peak_tf32 > 0 ? peak_tf32 : peak_float32;
    case MathFormat::bf16:
      return peak_bf16;
    case MathFormat::fp8:
      return peak_fp8 > 0 ? peak_fp8 : peak_bf16;
    case MathFormat::fp4:
      return peak_fp4 > 0 ? peak_fp4 : peak(MathFormat::fp8);
  }
  return peak_bf16;
}

}  // namespace tessera::plan
