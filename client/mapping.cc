// The cold path: attaching, switching to another generation, unmapping what nobody reads any more.

#include <cstdlib>

#include "client/client.h"

namespace apikey::client {
namespace {

constexpr unsigned kAttemptsMax = 8;  // a generation that went away in between sends us round again
constexpr uint32_t kRetryDelayMin_ms = 100;
constexpr uint32_t kRetryDelayMax_ms = 2000;
constexpr uint64_t kReclaimDelay_ns = 10000000;
constexpr uint64_t kStaleLook_ns = 2000000000;

/// A node nobody uses, from the list or new. nullptr without memory.
Mapping* take_node(apikey_client* client) {
    // SYNC node-pushed: acquire, for what was written before the push.
    for (Mapping* node = client->nodes.load(std::memory_order_acquire); node != nullptr; node = node->next) {
        // SYNC node-state: acquire pairs with the release of whoever left the node in this state.
        NodeState free = NodeState::kFree;
        if (node->state.load(std::memory_order_relaxed) == NodeState::kFree &&
            node->state.compare_exchange_strong(free, NodeState::kBusy, std::memory_order_acquire,
                                                std::memory_order_relaxed)) {
            return node;
        }
    }
    auto* node = static_cast<Mapping*>(calloc(1, sizeof(Mapping)));
    if (node == nullptr) {
        return nullptr;
    }
    node->state.store(NodeState::kBusy, std::memory_order_relaxed);
    Mapping* first = client->nodes.load(std::memory_order_relaxed);
    do {
        node->next = first;
        // SYNC node-pushed: release; `next` is written before the node can be found.
    } while (!client->nodes.compare_exchange_weak(first, node, std::memory_order_release,
                                                  std::memory_order_relaxed));
    return node;
}

void detach_node(Mapping* node) {
    shm::detach_generation(&node->generation);
    shm::detach_generation(&node->before);
    shm::detach_control(&node->control);
}

void free_node(Mapping* node) {
    detach_node(node);
    node->state.store(NodeState::kFree, std::memory_order_release);  // SYNC node-state
}

/// A time on the clock, which may have been set back since: never further ahead than `ahead_max_ns`.
bool is_due(uint64_t at_ns, uint64_t now_ns, uint64_t ahead_max_ns) {
    return now_ns >= at_ns || at_ns - now_ns > ahead_max_ns;
}

/// Unmaps the replaced mappings that no thread reads. What is read still is looked at again a little later,
/// by whichever thread calls then; so a generation is let go of even if nobody calls apikey_refresh().
void reclaim(apikey_client* client) {
    // SYNC reclaim-due: cleared first. Whoever clears the time that another thread set sees what that one
    // left. So that this holds for every one that set it before, it is only ever changed by
    // read-modify-write.
    client->reclaim_at_ns.exchange(0, std::memory_order_acq_rel);
    bool left = false;
    // SYNC node-pushed: as in take_node().
    for (Mapping* node = client->nodes.load(std::memory_order_acquire); node != nullptr; node = node->next) {
        NodeState retired = NodeState::kRetired;
        if (node->state.load(std::memory_order_relaxed) != NodeState::kRetired ||
            !node->state.compare_exchange_strong(retired, NodeState::kBusy, std::memory_order_relaxed,
                                                 std::memory_order_relaxed)) {
            continue;
        }
        // SYNC node-state: relaxed above, since the fence comes before all that is made of it.
        // SYNC record-reading: membarrier after the node was seen replaced, for this very node. One from
        // before would say nothing about a reader that took the mapping in between.
        const bool synchronised = heavy_fence();
        if (synchronised && !someone_reads(node)) {
            free_node(node);
            continue;
        }
        // SYNC node-state: relaxed, as nothing was done with it. What the thread that replaced the mapping
        // released goes on through read-modify-writes.
        node->state.exchange(NodeState::kRetired, std::memory_order_relaxed);
        left |= synchronised;  // without membarrier it stays until apikey_close()
    }
    if (left) {
        client->reclaim_at_ns.exchange(coarse_now_ns() + kReclaimDelay_ns, std::memory_order_acq_rel);
    }
}

/// Maps `control` of the instance's directory, or of the user's own while there is none; `*options` tells
/// which.
shm::AttachResult attach_named_control(const apikey_client* client, shm::AttachOptions* options,
                                       shm::ControlMapping* out) {
    *options = {client->directory, client->expected_owner};
    const shm::AttachResult result = shm::attach_control(*options, out);
    if (result != shm::AttachResult::kWaiting || client->own_directory[0] == '\0') {
        return result;
    }
    *options = {client->own_directory, client->own_uid};
    return shm::attach_control(*options, out);
}

/// Maps what a control's word names into `node`.
shm::AttachResult attach_generations(const shm::AttachOptions& options, uint64_t current_next, Target target,
                                     Mapping* node) {
    const uint32_t current = shm::current_of(current_next);
    const uint32_t next = shm::next_of(current_next);
    if (current == 0) {
        return shm::AttachResult::kWaiting;
    }
    node->current_while = current;
    if (target == Target::kCurrent || next <= current) {
        return shm::attach_generation(options, node->control, current, &node->generation);
    }
    const shm::AttachResult result = shm::attach_generation(options, node->control, current, &node->before);
    return result != shm::AttachResult::kOk
               ? result
               : shm::attach_generation(options, node->control, next, &node->generation);
}

/// Maps what control names now into `node`.
shm::AttachResult attach_node(const apikey_client* client, Target target, Mapping* node) {
    shm::AttachOptions options{};
    shm::AttachResult result = shm::AttachResult::kSuperseded;
    for (unsigned attempt = 0; attempt < kAttemptsMax && result == shm::AttachResult::kSuperseded;
         ++attempt) {
        detach_node(node);
        result = attach_named_control(client, &options, &node->control);
        if (result != shm::AttachResult::kOk) {
            break;
        }
        // SYNC generation-published: acquire; pairs with ControlWriter::publish(). What is named is complete.
        const uint64_t current_next = node->control.control->current_next.load(std::memory_order_acquire);
        result = attach_generations(options, current_next, target, node);
    }
    if (result != shm::AttachResult::kOk) {
        detach_node(node);
    }
    return result;
}

bool same_mapping(const Mapping* mapping, const Mapping* other) {
    return mapping != nullptr && mapping->generation.table.generation == other->generation.table.generation &&
           mapping->current_while == other->current_while && mapping->control.inode == other->control.inode &&
           mapping->control.device == other->control.device;
}

/// True when the file under the name `control` is the one this mapping came from, so that nothing needs
/// mapping.
bool control_still_named(const apikey_client* client, const Mapping& mapping) {
    shm::ControlMapping named;
    shm::AttachOptions options{};
    if (attach_named_control(client, &options, &named) != shm::AttachResult::kOk) {
        return true;  // nothing better is there
    }
    const bool same = named.inode == mapping.control.inode && named.device == mapping.control.device;
    shm::detach_control(&named);
    return same;
}

void note_attempt(apikey_client* client, shm::AttachResult result, uint64_t now_ns) {
    client->attached.store(static_cast<int>(result), std::memory_order_relaxed);
    if (result == shm::AttachResult::kOk) {
        client->retry_delay_ms.store(kRetryDelayMin_ms, std::memory_order_relaxed);
        client->retry_at_ns.store(0, std::memory_order_relaxed);
        return;
    }
    // While waiting for the first daemon the delay does not grow: a server should serve as soon as it can.
    const uint32_t delay_ms = client->retry_delay_ms.load(std::memory_order_relaxed);
    client->retry_at_ns.store(now_ns + uint64_t{delay_ms} * 1000000, std::memory_order_relaxed);
    if (result != shm::AttachResult::kWaiting) {
        const uint32_t next_ms = delay_ms * 2 < kRetryDelayMax_ms ? delay_ms * 2 : kRetryDelayMax_ms;
        client->retry_delay_ms.store(next_ms, std::memory_order_relaxed);
    }
}

}  // namespace

shm::AttachResult switch_mapping(apikey_client* client, Reading* reading, Target target) {
    // Whoever looks spares the others the look for a while; called once a second, validation never looks.
    client->look_at_ns.store(coarse_now_ns() + kStaleLook_ns, std::memory_order_relaxed);
    Mapping* before = reading != nullptr ? reading->mapping() : nullptr;
    if (before != nullptr && target == Target::kCurrent && is_current(*before) &&
        control_still_named(client, *before)) {
        note_attempt(client, shm::AttachResult::kOk, 0);
        reclaim(client);
        return shm::AttachResult::kOk;
    }
    Mapping* node = take_node(client);
    if (node == nullptr) {
        note_attempt(client, shm::AttachResult::kNoMemory, coarse_now_ns());
        return shm::AttachResult::kNoMemory;
    }
    const shm::AttachResult result = attach_node(client, target, node);
    note_attempt(client, result, coarse_now_ns());
    if (result != shm::AttachResult::kOk) {
        node->state.store(NodeState::kFree, std::memory_order_release);
        return result;
    }
    if (same_mapping(before, node)) {
        free_node(node);
        return result;
    }
    node->state.store(NodeState::kInstalled, std::memory_order_relaxed);
    // SYNC mapping-installed: seq_cst; pairs with the loads in Reading. The mapping is complete. The loser of
    // two threads that attach at once unmaps its own; should the winner's be older, the next call switches
    // again.
    if (client->installed.compare_exchange_strong(before, node, std::memory_order_seq_cst)) {
        if (before != nullptr) {
            // SYNC node-state: release, so that the fence of who unmaps it comes after what was installed.
            before->state.store(NodeState::kRetired, std::memory_order_release);
        }
    } else {
        free_node(node);
    }
    if (reading != nullptr) {
        reading->renew();
    }
    reclaim(client);
    return result;
}

bool try_switch_mapping(apikey_client* client, Reading* reading, uint64_t now_ns, IfBusy if_busy,
                        Target target) {
    const uint64_t retry_at_ns = client->retry_at_ns.load(std::memory_order_relaxed);
    if (!is_due(retry_at_ns, now_ns, uint64_t{2} * kRetryDelayMax_ms * 1000000)) {
        return false;
    }
    const bool alone = switching_try_begin();
    if (!alone && if_busy == IfBusy::kLeaveIt) {
        return false;
    }
    const shm::AttachResult result = switch_mapping(client, reading, target);
    if (alone) {
        switching_end();
    }
    return result == shm::AttachResult::kOk;
}

bool try_refresh_stale(apikey_client* client, Reading* reading, uint64_t now_ns) {
    uint64_t at_ns = client->look_at_ns.load(std::memory_order_relaxed);
    // One thread looks, the others see a later time.
    return is_due(at_ns, now_ns, kStaleLook_ns) &&
           client->look_at_ns.compare_exchange_strong(at_ns, now_ns + kStaleLook_ns,
                                                      std::memory_order_relaxed) &&
           switch_mapping(client, reading, Target::kCurrent) == shm::AttachResult::kOk;
}

void reclaim_later(apikey_client* client, uint64_t now_ns) {
    uint64_t at_ns = client->reclaim_at_ns.load(std::memory_order_relaxed);
    if (at_ns == 0 || !is_due(at_ns, now_ns, kReclaimDelay_ns)) {
        return;
    }
    // One thread looks, the others see a later time.
    if (client->reclaim_at_ns.compare_exchange_strong(at_ns, now_ns + kReclaimDelay_ns,
                                                      std::memory_order_relaxed)) {
        reclaim(client);
    }
}

}  // namespace apikey::client
