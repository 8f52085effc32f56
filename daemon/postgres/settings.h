// How to connect, as libpq takes it. Private to daemon/postgres.

#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "postgres/pq.h"

namespace apikeyd {

/// Connection parameters by keyword.
class PostgresSettings {
  public:
    [[nodiscard]] std::string get(std::string_view keyword) const {
        const auto found = find(keyword);
        return found == all_.end() ? std::string() : found->second;
    }
    /// An empty one counts as not given.
    void set(std::string_view keyword, std::string value) {
        if (const auto found = find(keyword); found != all_.end()) {
            all_.erase(found);
        }
        if (!value.empty()) {
            all_.emplace_back(keyword, std::move(value));
        }
    }
    /// Begins to connect; nullptr: out of memory.
    [[nodiscard]] PqPtr<PGconn> start() const;

  private:
    using All = std::vector<std::pair<std::string, std::string>>;
    [[nodiscard]] All::const_iterator find(std::string_view keyword) const {
        return std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return one.first == keyword; });
    }
    All all_;
};

/// Those of the URI, which go before ours.
Result<PostgresSettings> settings_of(const std::string& place);

/// One for each host that is named, in the order in which libpq would try them. By itself it would go on to
/// the next only when one refuses, not when one says nothing.
std::vector<PostgresSettings> each_host(const PostgresSettings& all);

}  // namespace apikeyd
