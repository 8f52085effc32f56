#include "tests/crash/key_set.h"

#include <stdexcept>

#include "base/hex.h"
#include "shm/key_form.h"
#include "shm/sha256.h"

namespace apikey::crash {
namespace {

using apikeyd::Change;
using apikeyd::KeyRow;
using apikeyd::KeyState;

constexpr size_t kSteady = 5;
constexpr size_t kLimited = 1;  // of the steady ones
constexpr size_t kNeverValid = 2;
/// So many keys with so long metadata do not fit the room that a table has to spare.
constexpr size_t kLarge = 20;
constexpr size_t kLargeAgain = 24;
constexpr size_t kLargeBytes = 4000;

/// What an edit works on; the keys stand in this order after the steady ones and those that are never valid.
enum Role : size_t {
    kAdded = kSteady + 1 + kNeverValid,  // one more that is steady, and foreign
    kUpdated,
    kSwitched,
    kRevoked,
    kRemoved,
    kForeign,
    kRevokedInBuild,
    kAddedInBuild,
    kUpdatedInBuild,
    kDisabledSuperseded,
    kRevokedSuperseded,
    kRemovedSuperseded,
    kRevokedThird,
    kRevokedLast,
    kFirstLarge,
};

std::string large_metadata() {
    return R"({"note":")" + std::string(kLargeBytes, 'x') + R"("})";
}

}  // namespace

KeySet::KeySet() {
    for (size_t i = 0; i < kSteady; ++i) {
        add_native(true, true);
    }
    // Limits that nobody reaches: what is spent of them moves with every generation.
    keys_[kLimited].row.terms = std::make_shared<const apikeyd::KeyTerms>(
        apikeyd::KeyTerms{.scopes = {"reports.*"}, .plan = "limited", .addresses = {}, .overrides = {}});
    add_foreign(true, true);
    add_native(false);
    add_foreign(false);
    for (size_t role = kAdded; role < kFirstLarge + kLarge + kLargeAgain; ++role) {
        const bool later = role == kAdded || role == kAddedInBuild || role >= kFirstLarge;
        role == kForeign ? add_foreign(false) : add_native(!later);
    }
    for (size_t i = kFirstLarge; i < keys_.size(); ++i) {
        keys_[i].row.metadata = large_metadata();
    }
}

void KeySet::add_native(bool in_source, bool steady) {
    char text[shm::kNativeKeyLengthMax];
    size_t length = 0;
    for (uint64_t state = keys_.size() + 1; length == 0;) {
        uint8_t random[64];
        for (uint8_t& byte : random) {
            state = state * 6364136223846793005 + 1442695040888963407;
            byte = static_cast<uint8_t>(state >> 56);
        }
        length = shm::native_key_make("ak_test", 7, random, sizeof random, text);
    }
    Key key;
    key.text.assign(text, length);
    key.row.id.assign(shm::native_key_id(text, length), shm::kIdLength);
    key.row.environment = "test";
    key.row.owner = "owner-" + std::to_string(keys_.size() % 3);
    key.row.name = "key " + std::to_string(keys_.size());
    shm::sha256_kernel().hash(text, length, key.row.digest.data());
    key.in_source = in_source;
    key.steady = steady;
    keys_.push_back(std::move(key));
}

void KeySet::add_foreign(bool in_source, bool steady) {
    Key key;
    key.text = "imported key number " + std::to_string(keys_.size());
    key.row.foreign = true;
    shm::sha256_kernel().hash(key.text.data(), key.text.size(), key.row.digest.data());
    key.row.id = apikeyd::to_hex(key.row.digest).substr(0, shm::kIdLength);
    key.in_source = in_source;
    key.steady = steady;
    keys_.push_back(std::move(key));
}

std::vector<size_t> KeySet::make(Edit edit) {
    const auto with_state = [this](Role role, KeyState state) {
        keys_[role].row.state = state;
        return std::vector<size_t>{role};
    };
    const auto in_source = [this](size_t first, size_t count, bool there) {
        std::vector<size_t> touched;
        for (size_t i = first; i < first + count; ++i) {
            keys_[i].in_source = there;
            touched.push_back(i);
        }
        return touched;
    };
    switch (edit) {
        case Edit::kFirst:
            return in_source(0, 0, true);
        case Edit::kAdd:
            keys_[kAdded].row.environment = "staging";
            keys_[kAdded].row.owner = "newcomer";
            keys_[kAdded].row.metadata = R"({"team":"platform"})";
            return in_source(kAdded, 1, true);
        case Edit::kUpdate:
            keys_[kUpdated].row.name = "another name";
            keys_[kUpdated].row.expires_s = 4102444800;
            return {kUpdated};
        case Edit::kDisable:
            return with_state(kSwitched, KeyState::kDisabled);
        case Edit::kEnable:
            return with_state(kSwitched, KeyState::kActive);
        case Edit::kRevoke:
            return with_state(kRevoked, KeyState::kRevoked);
        case Edit::kRemove:
            return in_source(kRemoved, 1, false);
        case Edit::kAddForeign:
        case Edit::kReturnForeign:
            return in_source(kForeign, 1, true);
        case Edit::kRemoveForeign:
            return in_source(kForeign, 1, false);
        case Edit::kFill:
            return in_source(kFirstLarge, kLarge, true);
        case Edit::kRevokeInBuild:
            return with_state(kRevokedInBuild, KeyState::kRevoked);
        case Edit::kAddInBuild:
            return in_source(kAddedInBuild, 1, true);
        case Edit::kUpdateInBuild:
            keys_[kUpdatedInBuild].row.owner = "another owner";
            keys_[kUpdatedInBuild].row.metadata = large_metadata();  // there is no room for as much as that
            return {kUpdatedInBuild};
        case Edit::kDisableSuperseded:
            return with_state(kDisabledSuperseded, KeyState::kDisabled);
        case Edit::kRevokeSuperseded:
            return with_state(kRevokedSuperseded, KeyState::kRevoked);
        case Edit::kRemoveSuperseded: {
            std::vector<size_t> touched = in_source(kFirstLarge, kLarge, false);
            keys_[kRemovedSuperseded].in_source = false;
            touched.push_back(kRemovedSuperseded);
            return touched;
        }
        case Edit::kRaiseLimits:
            raised_ = true;
            return {};
        case Edit::kFillAgain:
            return in_source(kFirstLarge + kLarge, kLargeAgain, true);
        case Edit::kRevokeThird:
            return with_state(kRevokedThird, KeyState::kRevoked);
        case Edit::kLast:
            return with_state(kRevokedLast, KeyState::kRevoked);
    }
    throw std::logic_error("no such edit");
}

std::vector<Change> KeySet::changes(const std::vector<size_t>& touched) const {
    std::vector<Change> changes;
    for (const size_t index : touched) {
        const Key& key = keys_[index];
        changes.push_back({key.in_source ? Change::Kind::kUpsert : Change::Kind::kRemove, key.row});
    }
    return changes;
}

std::string KeySet::text() const {
    const std::string million = raised_ ? "2000000" : "1000000";
    std::string text =
        "version: 1\nscopes: [reports.read]\nplans:\n  - name: limited\n    limits:\n"
        "      - {name: fast, rate: 1000000/s}\n      - {name: monthly, quota: " +
        million + "/month}\n  - name: shared\n    limits: [{name: daily, quota: " + million +
        "/day}]\nowners:\n  - {name: owner-1, plan: shared}\n" +
        (raised_ ? "  - {name: owner-2, plan: shared}\n" : "") + "keys:\n";
    for (const Key& key : keys_) {
        if (!key.in_source) {
            continue;
        }
        const KeyRow& row = key.row;
        text += "  - id: '" + row.id + "'\n    sha256: '" + apikeyd::to_hex(row.digest) + "'\n";
        text += row.foreign ? "    foreign: true\n" : "    environment: " + row.environment + "\n";
        text += row.owner.empty() ? "" : "    owner: " + row.owner + "\n";
        text += row.name.empty() ? "" : "    name: " + row.name + "\n";
        text += row.metadata.empty() ? "" : "    metadata: " + row.metadata + "\n";
        text += row.terms != nullptr ? "    plan: limited\n    scopes: [reports.*]\n" : "";
        text += row.expires_s ? "    expires: 2100-01-01T00:00:00Z\n" : "";
        text += "    state: " + std::string(key_state_name(row.state)) + "\n";
    }
    return text;
}

}  // namespace apikey::crash
