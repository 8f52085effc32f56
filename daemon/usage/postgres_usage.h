// The table of what the hosts of a fleet counted (postgres_usage.sql), for a daemon that sends to it.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "source/serving_host.h"
#include "usage/usage_batch.h"

namespace apikeyd {

/// Connects when it has something to send, and keeps the connection. One thread at a time, but for stop().
class PostgresUsage {
  public:
    /// `place`: see postgres/place.h. Of `host` its name and place_id tell who sends.
    PostgresUsage(std::string place, ServingHost host);
    ~PostgresUsage();

    /// In one statement. Answers the number that the database has then: UsageBatch::number. An error tells
    /// place and what to do; whether the batch is there is not known then, and does not matter.
    Result<uint64_t> send(const UsageBatch& batch);

    /// For the daemon's end, on any thread: what waits gives up soon, with an error, now and later.
    void stop();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
