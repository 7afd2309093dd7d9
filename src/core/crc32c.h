// CRC-32C (Castagnoli): the checksum of TensorBoard's records.
#pragma once

#include <cstdint>
#include <string_view>

namespace tessera {

uint32_t crc32c(std::string_view bytes);

// Rotated and offset, as TFRecord files store it: a checksum of data that holds checksums would be weak.
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace tessera
