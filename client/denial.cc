#include "client/denial.h"

#include <cstring>

namespace apikey::client {
namespace {

static_assert(sizeof(shm::Denial::key_id) == APIKEY_ID_LENGTH);
static_assert(sizeof(shm::Denial::address) == sizeof(apikey_address));

void name_key(const Presented& key, apikey_code code, shm::Denial* out) {
    if (key.found.index != shm::kNoSlot) {
        out->slot = key.found.index;
        out->parts |= shm::kDenialSlot;
    } else if (key.id != nullptr && code == APIKEY_NOT_FOUND) {
        // Not of one that is malformed: what stands there may be anything, a part of a secret as well.
        std::memcpy(out->key_id, key.id, APIKEY_ID_LENGTH);
        out->parts |= shm::kDenialId;
    } else {
        // The table holds no key's last bytes. More of them would let whoever reads the log find a weak
        // secret that was presented by mistake: of a million guesses fifteen agree in two.
        std::memcpy(&out->key_mark, key.digest + sizeof key.digest - sizeof out->key_mark,
                    sizeof out->key_mark);
        out->parts |= shm::kDenialMark;
    }
}

}  // namespace

void tell_denial(const Moment& moment, apikey_code code, const Presented* key, const Asked& asked) {
    shm::Denial denial;
    std::memset(&denial, 0, sizeof denial);
    denial.time_ns = moment.now_ns;
    denial.pid = this_process();
    denial.code = static_cast<uint8_t>(code);
    if (key != nullptr) {
        name_key(*key, code, &denial);
    }
    if (asked.address != nullptr) {
        std::memcpy(denial.address, asked.address->bytes, sizeof denial.address);
        denial.parts |= shm::kDenialAddress;
    }
    shm::write_denial(moment.mapping->generation.cells, denial);
}

}  // namespace apikey::client
