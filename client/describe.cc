// What is known of a key beyond the verdict: the cold strings, copied for the caller.

#include <cstring>

#include "client/validate.h"
#include "shm/index_hash.h"

namespace apikey::client {
namespace {

static_assert(APIKEY_DESCRIPTION_MAX >= shm::kDetailIdMax + shm::kDetailOwnerMax + shm::kDetailNameMax +
                                            shm::kDetailMetadataMax + shm::kEnvironmentNameBytes + 5);

/// Appends NUL-terminated copies to a caller's buffer.
class Copier {
  public:
    Copier(char* at, size_t left) : at_(at), left_(left) {}
    const char* copy(const char* text, size_t length) {
        if (left_ <= length) {
            ok_ = false;
            return nullptr;
        }
        char* copied = at_;
        if (length != 0) {
            std::memcpy(copied, text, length);
        }
        copied[length] = '\0';
        at_ += length + 1;
        left_ -= length + 1;
        return copied;
    }
    bool ok() const { return ok_; }

  private:
    char* at_;
    size_t left_;
    bool ok_ = true;
};

/// The verdict's slot in this mapping, which may be newer than the one it was decided in.
const shm::Slot* slot_of(const shm::TableView& table, const apikey_verdict& verdict) {
    const shm::DigestKey key{{verdict.ref[2], verdict.ref[3]}, static_cast<uint32_t>(verdict.ref[0])};
    if (static_cast<uint32_t>(verdict.ref[0] >> 32) == table.generation) {
        const uint64_t index = verdict.ref[1];
        return index < table.slot_count() && shm::same_digest(table.slots[index], key) ? &table.slots[index]
                                                                                       : nullptr;
    }
    uint8_t digest[shm::kDigestLength] = {};
    std::memcpy(digest, key.digest, sizeof key.digest);
    const uint64_t hash = verdict.key_id[0] != '\0' ? shm::index_hash_id(verdict.key_id, table.hash_seed)
                                                    : shm::index_hash_digest(digest, table.hash_seed);
    const shm::Found found = shm::find_slot(table, hash, key);
    return found.index != shm::kNoSlot ? &table.slots[found.index] : nullptr;
}

}  // namespace

int describe(apikey_client* client, const apikey_verdict& verdict, char* buffer, size_t buffer_bytes,
             apikey_description* out) {
    Reading reading(client);
    if (reading.busy() || reading.mapping() == nullptr || verdict.ref[0] == 0) {
        return 0;
    }
    const shm::TableView& table = reading.mapping()->generation.table;
    const shm::Slot* slot = slot_of(table, verdict);
    if (slot == nullptr) {
        return 0;
    }
    const uint64_t meta = slot->meta.load(std::memory_order_acquire);  // SYNC slot-published
    if (shm::Meta::state(meta) == shm::SlotState::kEmpty || shm::Meta::state(meta) == shm::SlotState::kDead) {
        return 0;  // the key left the source
    }
    shm::DetailView detail;
    // SYNC detail-published: acquire; pairs with TableWriter::set_detail() and publish().
    if (!shm::read_detail(table, slot->detail.load(std::memory_order_acquire), &detail)) {
        return 0;
    }
    char environment[shm::kEnvironmentNameBytes + 1];
    shm::read_environment(table, shm::Meta::environment(meta), environment);
    Copier copier(buffer, buffer_bytes);
    out->key_id = copier.copy(detail.id, detail.id_bytes);
    out->owner = copier.copy(detail.owner, detail.owner_bytes);
    out->environment = copier.copy(environment, strlen(environment));
    out->name = copier.copy(detail.name, detail.name_bytes);
    out->metadata = copier.copy(detail.metadata, detail.metadata_bytes);
    out->created_at = detail.created_s;
    return copier.ok() ? 1 : -1;
}

}  // namespace apikey::client
