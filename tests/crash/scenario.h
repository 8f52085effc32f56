// What the writer does in a run, from a fresh instance to its end, and what the writer does that comes after.

#pragma once

#include <functional>

#include "tests/crash/link.h"
#include "tests/crash/writer.h"

namespace apikey::crash {

/// The scenario's parts, by the number that points carry.
const char* step_name(uint8_t step);

/// Everything that the writer does; `arm` is called before its first point. Answers the exit status; what
/// becomes of it goes over the link.
int walk(const Site& site, const Link& link, const std::function<void()>& arm);

/// Starts on what is left when told to, serves, changes something, harvests and stops.
int come_after(const Site& site, const Link& link, const std::function<void()>& arm);

}  // namespace apikey::crash
