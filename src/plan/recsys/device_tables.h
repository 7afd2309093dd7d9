// Tables in the memory of trainers' devices: each device owns rows or whole tables, looks up what all devices'
// batches need of them, and sends pooled vectors to the devices that own the samples; gradients come back the
// same way.
//
// Whole tables send one pooled vector for each sample and table; rows by hash send one for every owner that a
// sample's ids meet, at most as many as it has ids. Same units and thread rules as step.h.
#pragma once

#include "plan/recsys/step.h"

namespace tessera::plan::recsys {

struct DeviceTablesTime {
  double look_up = 0;   // forward reads and the optimizer's reads and writes, of the busiest device
  double exchange = 0;  // ids there, vectors back, gradients there
};
// `busiest`: of all look-ups, the share of the busiest device.
DeviceTablesTime device_tables_time(const Work& work, const Pools& pools, const Engine& engine,
                                    const Layout& layout, const BatchIds& ids, double busiest);

}  // namespace tessera::plan::recsys
