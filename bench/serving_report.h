// The figures as text for people and as JSON for programs.

#pragma once

#include <string>
#include <vector>

#include "bench/serving_run.h"

namespace apikey::bench {

std::string serving_text(const ServingOptions& options, const std::vector<FigureTable>& tables);
std::string serving_json(const ServingOptions& options, const std::vector<FigureTable>& tables);

}  // namespace apikey::bench
