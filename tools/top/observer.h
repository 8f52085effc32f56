// Looks at an instance's shared memory, whether a daemon runs or not, and changes nothing: all is mapped
// read-only, and no lock is taken, so that neither daemon nor servers notice.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/top/cell_walk.h"
#include "tools/top/model.h"

namespace apikeyd::top {

/// Not thread-safe. Throws std::bad_alloc.
class Observer {
  public:
    /// `directory` is the instance's, `owner` who must own it (shm::kAnyOwner: whoever does).
    Observer(std::string directory, uid_t owner) : directory_(std::move(directory)), owner_(owner) {}
    ~Observer();
    Observer(const Observer&) = delete;
    Observer& operator=(const Observer&) = delete;

    /// Maps what stands in the directory now and lets go of what is of no more use. After a failure, and when
    /// another instance stands there, counting begins anew.
    Look look();
    /// Walks the cells of all generations. Rates are since the walk before.
    Activity walk(const Look& look, Sort sort, size_t keys);

  private:
    struct Generation {
        apikey::shm::GenerationMapping mapping;
        uint64_t device;
        uint64_t inode;
        std::unique_ptr<CellBaseline> baseline;
        bool known;  ///< what was counted by the walk before; nothing, where it came since
        bool named;  ///< its files stand in the directory; else it is kept until it was walked once more
    };

    apikey::shm::AttachResult renew_control();
    void observe(uint32_t number);
    void name_generations();
    void forget_all();
    std::vector<uint32_t> numbers() const;
    Health health() const;
    uint64_t mappings(const std::string& locks) const;

    std::string directory_;
    uid_t owner_;
    apikey::shm::ControlMapping control_;
    std::map<uint32_t, Generation> generations_;
    bool looked_ = false;
    uint32_t newest_ = 0;
    uint64_t walked_ns_ = 0;  ///< CLOCK_MONOTONIC; 0: not yet
};

}  // namespace apikeyd::top
