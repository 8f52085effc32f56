// How the programs that measure end.

#pragma once

namespace apikey::bench {

/// Exit statuses, as the operator's tool has them.
enum Exit : int { kDone = 0, kWrong = 1, kUsage = 2, kUnreachable = 3 };

}  // namespace apikey::bench
