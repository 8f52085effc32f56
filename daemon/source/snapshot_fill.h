// A snapshot that is made anew, of all rows. Private to daemon/source.

#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "source/file_lock.h"
#include "source/snapshot_rows.h"
#include "source/temporary_file.h"
#include "sqlite/sql_connection.h"

namespace apikeyd {

/// One that is being filled, beside the one that is there. Of many rows another thread writes them, so that
/// whoever waits for a load waits little for this.
class SnapshotFill {
  public:
    static Result<std::unique_ptr<SnapshotFill>> begin(const std::string& path);

    ~SnapshotFill() { end_writer(true); }

    /// An error is of a row before.
    Result<void> add(const KeyRow& row);
    /// No row comes any more.
    Result<void> end(const PolicySet& policies);

    /// All that is left to do but for the name. Two of its rows that have the same id or digest are an error.
    Result<void> finish(const snapshot_rows::Standing& standing,
                        const std::vector<snapshot_rows::Tightened>& since);
    Result<void> take_its_place() { return file_.rename_to(place_, true); }

  private:
    static constexpr size_t kBatchRows = 4096;
    static constexpr size_t kBatchesMax = 4;

    Result<void> hand_over();
    /// What was handed over is written then, unless it is unwanted.
    void end_writer(bool unwanted);
    void write();

    FilePlace place_;
    TemporaryFile file_;
    std::unique_ptr<SqliteConnection> connection_;  // the writer's, while there is one
    SqlStatementPtr put_;
    std::vector<KeyRow> batch_;

    std::thread writer_;
    std::mutex mutex_;
    std::condition_variable given_, taken_;
    std::deque<std::vector<KeyRow>> batches_;  // under the mutex
    bool ended_ = false;                       // too
    Result<void> written_;                     // too; the first error ends the writer
};

}  // namespace apikeyd
