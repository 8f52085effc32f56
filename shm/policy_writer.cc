#include "shm/policy_writer.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <vector>

#include "shm/meters.h"

namespace apikey::shm {
namespace {

uint64_t hash_of(const void* bytes, size_t count) {
    return XXH3_64bits(bytes, count);
}

/// Tells plan, limit and kind in a meter word, so that what was taken of another limit is not taken for this
/// one's. The figures are left out: a limit that is changed goes on with what was taken.
uint16_t tag_of(std::string_view plan, const Limit& limit) {
    std::string text(plan);
    text.push_back('\0');
    text.append(limit.name, strnlen(limit.name, sizeof limit.name));
    text.push_back(static_cast<char>(limit.kind));
    const uint64_t hash = hash_of(text.data(), text.size());
    return static_cast<uint16_t>(limit.kind == LimitKind::kRate
                                     ? RateWord::kTagFirst + hash % RateWord::kTags
                                     : QuotaWord::kTagFirst + hash % QuotaWord::kTags);
}

/// One entry more, which is complete.
void add_one(Word& used) {
    // SYNC owner-named, plan-named: release; pairs with whoever moves owners' meters (move_meters() of the
    // daemon), and with the builder's look at the live table's plans (set_policies() of the daemon).
    used.store(used.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

}  // namespace

PolicyWriter::PolicyWriter(void* base, const TableView& view, uint32_t meter_words)
    : base_(static_cast<uint8_t*>(base)), view_(view), details_(base, view), meter_words_(meter_words) {
    // Relaxed, all: what stands here was written by a daemon that has ended.
    const TableHeader& stored = header();
    const auto used = [](const Word& word, uint64_t capacity) {
        return std::min(word.load(std::memory_order_relaxed), capacity);
    };
    for (uint32_t bit = 0; bit < used(stored.scopes_used, view_.scope_count); ++bit) {
        const char* text = view_.scopes[bit].text;
        scopes_.emplace(std::string(text, strnlen(text, kScopeNameBytes)), bit);
    }
    for (uint32_t number = 1; number < used(stored.plans_used, view_.plan_count); ++number) {
        plans_.emplace(read_name(view_, view_.plans[number].name).string(), number);
    }
    for (uint32_t number = 1; number < used(stored.owners_used, view_.owner_count); ++number) {
        owners_.emplace(read_name(view_, view_.owners[number].name).string(), number);
    }
    for (uint32_t number = 1; number < used(stored.policies_used, view_.policy_count); ++number) {
        note_policy(number, view_.policies[number]);
    }
}

void PolicyWriter::note_policy(uint32_t number, const Policy& policy) {
    policies_.emplace(hash_of(&policy, sizeof policy), number);
    note_list<AddressRange>(policy.addresses);
    note_list<Limit>(policy.overrides);
}

template <typename Element>
void PolicyWriter::note_list(uint32_t reference) {
    const ListReader<Element> list(view_, reference);
    std::vector<Element> elements;
    for (uint32_t i = 0; i < list.count(); ++i) {
        elements.push_back(list.get(i));
    }
    if (list.found()) {
        lists_.emplace(hash_of(elements.data(), elements.size() * sizeof(Element)), reference);
    }
}

template <typename Element>
uint32_t PolicyWriter::append_list(std::span<const Element> elements, uint32_t words_used) {
    const uint32_t reference = details_.append(sizeof(PolicyList) + elements.size_bytes());
    if (reference != 0) {
        const PolicyList head{static_cast<uint32_t>(elements.size()), words_used};
        uint8_t* at = details_.at(reference);
        write_plain(at, &head, sizeof head);
        for (size_t i = 0; i < elements.size(); ++i) {
            write_plain(at + sizeof head + i * sizeof(Element), &elements[i], sizeof(Element));
        }
    }
    return reference;
}

/// A list that says this; 0 for an empty one, nullopt when there is no room.
template <typename Element>
std::optional<uint32_t> PolicyWriter::intern_list(std::span<const Element> elements) {
    if (elements.empty()) {
        return 0;
    }
    const uint64_t hash = hash_of(elements.data(), elements.size_bytes());
    if (const auto known = lists_.find(hash); known != lists_.end()) {
        const ListReader<Element> list(view_, known->second);
        bool same = list.count() == elements.size();
        for (uint32_t i = 0; same && i < list.count(); ++i) {
            const Element stored = list.get(i);
            same = std::memcmp(&stored, &elements[i], sizeof stored) == 0;
        }
        if (same) {
            return known->second;
        }
    }
    const uint32_t reference = append_list(elements, 0);
    if (reference == 0) {
        return std::nullopt;
    }
    lists_.emplace(hash, reference);
    return reference;
}

std::optional<uint32_t> PolicyWriter::scope(std::string_view name) {
    if (const auto known = scopes_.find(std::string(name)); known != scopes_.end()) {
        return known->second;
    }
    const uint64_t bit = header().scopes_used.load(std::memory_order_relaxed);
    if (bit >= view_.scope_count || name.size() >= kScopeNameBytes) {
        return std::nullopt;
    }
    write_plain(entry(view_.scopes, bit).text, name.data(), name.size());
    // SYNC scope-named: release; pairs with the clients' look at how many names there are.
    header().scopes_used.store(bit + 1, std::memory_order_release);
    scopes_.emplace(name, static_cast<uint32_t>(bit));
    return static_cast<uint32_t>(bit);
}

/// The plan's number; nullopt when it was never set.
std::optional<uint32_t> PolicyWriter::known_plan(std::string_view name) const {
    if (name.empty()) {
        return 0;
    }
    const auto known = plans_.find(std::string(name));
    // Relaxed: nobody else stores.
    return known != plans_.end() && view_.plans[known->second].body.load(std::memory_order_relaxed) != 0
               ? std::optional(known->second)
               : std::nullopt;
}

/// The place of a plan, a new one's body being 0.
std::optional<uint32_t> PolicyWriter::plan(std::string_view name) {
    if (const auto known = plans_.find(std::string(name)); known != plans_.end()) {
        return known->second;
    }
    const auto number = static_cast<uint32_t>(header().plans_used.load(std::memory_order_relaxed));
    const uint32_t text = number < view_.plan_count ? details_.append_name(name) : 0;
    if (text == 0) {
        return std::nullopt;
    }
    entry(view_.plans, number).name = text;
    add_one(header().plans_used);
    plans_.emplace(name, number);
    return number;
}

/// Each limit has the word that it had in the plan before, or one that none has had in this generation: who
/// still reads an older body may be taking from that. False: there are not so many.
bool PolicyWriter::choose_words(std::vector<Limit>& limits, const ListReader<Limit>& before,
                                uint32_t* words_used) const {
    constexpr uint8_t kNone = 0xff;
    for (Limit& limit : limits) {
        limit.word = kNone;
        for (uint32_t i = 0; i < before.count(); ++i) {
            const Limit known = before.get(i);
            if (known.tag == limit.tag && known.kind == limit.kind &&
                std::memcmp(known.name, limit.name, sizeof limit.name) == 0) {
                if (known.word >= meter_words_) {
                    return false;  // the file it goes on in, or comes from, has more words
                }
                limit.word = known.word;
                *words_used |= 1u << limit.word;
            }
        }
    }
    for (Limit& limit : limits) {
        if (limit.word == kNone) {
            limit.word = static_cast<uint8_t>(std::countr_one(*words_used));
            if (limit.word >= meter_words_) {
                return false;
            }
            *words_used |= 1u << limit.word;
        }
    }
    return true;
}

bool PolicyWriter::set_plan(std::string_view name, std::span<const Limit> limits,
                            const ListReader<Limit>* before) {
    const std::optional<uint32_t> number = plan(name);
    if (!number) {
        return false;
    }
    HalfWord& body = entry(view_.plans, *number).body;
    const ListReader<Limit> stored(view_, body.load(std::memory_order_relaxed));  // nobody else stores
    uint32_t words_used = before != nullptr ? 0 : stored.words_used();
    std::vector<Limit> placed(limits.begin(), limits.end());
    for (Limit& limit : placed) {
        limit.tag = tag_of(name, limit);
    }
    if (!choose_words(placed, before != nullptr ? *before : stored, &words_used)) {
        return false;
    }
    bool same = stored.found() && stored.count() == placed.size();
    for (uint32_t i = 0; same && i < stored.count(); ++i) {
        const Limit limit = stored.get(i);
        same = std::memcmp(&limit, &placed[i], sizeof limit) == 0;
    }
    if (same) {
        return true;
    }
    const uint32_t reference = append_list<Limit>(placed, words_used);
    if (reference == 0) {
        return false;
    }
    // SYNC plan-published: the list is complete; pairs with plan_body(). seq_cst, as what tightens is.
    body.store(reference, std::memory_order_seq_cst);
    return true;
}

void PolicyWriter::set_plan_elsewhere(std::string_view name) {
    if (const auto known = plans_.find(std::string(name)); known != plans_.end()) {
        // SYNC plan-published: release; who meets it looks in another generation, which has to be found
        // announced.
        entry(view_.plans, known->second).body.store(kPlanElsewhere, std::memory_order_release);
    }
}

bool PolicyWriter::set_owner(std::string_view name, std::string_view plan_name) {
    const bool placed = place_owner(name, plan_name);
    if (placed) {
        owners_without_room_.erase(std::string(name));
    } else {
        owners_without_room_.emplace(name);
    }
    return placed;
}

bool PolicyWriter::place_owner(std::string_view name, std::string_view plan_name) {
    const std::optional<uint32_t> plan_number = known_plan(plan_name);
    if (!plan_number) {
        return false;
    }
    uint32_t number = owner(name);
    if (number == 0) {
        if (*plan_number == 0) {
            return true;
        }
        number = static_cast<uint32_t>(header().owners_used.load(std::memory_order_relaxed));
        const uint32_t text = number < view_.owner_count ? details_.append_name(name) : 0;
        if (text == 0) {
            return false;
        }
        entry(view_.owners, number).name = text;
        add_one(header().owners_used);
        owners_.emplace(name, number);
    }
    HalfWord& stored = entry(view_.owners, number).plan;
    if (stored.load(std::memory_order_relaxed) != *plan_number) {
        // SYNC plan-published: pairs with owner_plan(). seq_cst, as what tightens is.
        stored.store(*plan_number, std::memory_order_seq_cst);
    }
    return true;
}

uint32_t PolicyWriter::owner(std::string_view name) const {
    const auto known = owners_.find(std::string(name));
    return known != owners_.end() ? known->second : 0;
}

std::optional<uint32_t> PolicyWriter::policy(const PolicyText& text) {
    // Of millions of rows most, often.
    if (text.says_nothing() && owners_.empty() && owners_without_room_.empty()) {
        return 0;
    }
    Policy made{};
    for (const std::string& name : text.scopes) {
        const std::optional<uint32_t> bit = scope(name);
        if (!bit) {
            return std::nullopt;
        }
        made.scopes[*bit / 64] |= uint64_t{1} << *bit % 64;
    }
    std::vector<Limit> overrides(text.overrides.begin(), text.overrides.end());
    for (Limit& limit : overrides) {
        limit.tag = tag_of(text.plan, limit);
        limit.word = 0;  // the plan's
    }
    const std::optional<uint32_t> plan_number = known_plan(text.plan);
    const std::optional<uint32_t> addresses = intern_list(text.addresses);
    const std::optional<uint32_t> overridden = intern_list(std::span<const Limit>(overrides));
    if (!plan_number || !addresses || !overridden || owners_without_room_.contains(std::string(text.owner))) {
        return std::nullopt;
    }
    made.plan = *plan_number;
    made.owner = owner(text.owner);
    made.addresses = *addresses;
    made.overrides = *overridden;
    const Policy nothing{};
    if (std::memcmp(&made, &nothing, sizeof made) == 0) {
        return 0;
    }
    const uint64_t hash = hash_of(&made, sizeof made);
    if (const auto known = policies_.find(hash);
        known != policies_.end() && std::memcmp(&view_.policies[known->second], &made, sizeof made) == 0) {
        return known->second;
    }
    const auto number = static_cast<uint32_t>(header().policies_used.load(std::memory_order_relaxed));
    if (number >= view_.policy_count) {
        return std::nullopt;
    }
    // SYNC slot-published: read by who has loaded a meta that names it, which is stored later.
    write_plain(&entry(view_.policies, number), &made, sizeof made);
    add_one(header().policies_used);
    policies_.emplace(hash, number);
    return number;
}

bool PolicyWriter::whole() const {
    const TableHeader& stored = view_.header();
    const uint64_t end = stored.details_used.load(std::memory_order_relaxed);
    const auto list_ends = [&](uint32_t reference, uint64_t element_bytes) {
        const ListReader<uint64_t> list(view_, reference);
        const uint64_t from = uint64_t{reference} * kDetailUnit + sizeof(PolicyList);
        return reference == 0 ||
               (list.found() && from <= end && list.count() <= (end - from) / element_bytes);
    };
    const auto name_ends = [&](uint32_t reference) {
        const NameView name = read_name(view_, reference);
        return name.text != nullptr &&
               static_cast<uint64_t>(reinterpret_cast<const uint8_t*>(name.text) - view_.details) +
                       name.bytes <=
                   end;
    };
    const uint64_t policies = stored.policies_used.load(std::memory_order_relaxed);
    const uint64_t plans = stored.plans_used.load(std::memory_order_relaxed);
    const uint64_t owners = stored.owners_used.load(std::memory_order_relaxed);
    if (policies < 1 || policies > view_.policy_count || plans < 1 || plans > view_.plan_count ||
        owners < 1 || owners > view_.owner_count ||
        stored.scopes_used.load(std::memory_order_relaxed) > view_.scope_count) {
        return false;
    }
    for (uint64_t number = 1; number < plans; ++number) {
        const uint32_t body = view_.plans[number].body.load(std::memory_order_relaxed);
        if (!name_ends(view_.plans[number].name) ||
            (body != kPlanElsewhere && !list_ends(body, sizeof(Limit)))) {
            return false;
        }
    }
    for (uint64_t number = 1; number < owners; ++number) {
        if (!name_ends(view_.owners[number].name) ||
            view_.owners[number].plan.load(std::memory_order_relaxed) >= plans) {
            return false;
        }
    }
    for (uint64_t number = 1; number < policies; ++number) {
        const Policy& policy = view_.policies[number];
        if (policy.plan >= plans || policy.owner >= owners ||
            !list_ends(policy.addresses, sizeof(AddressRange)) ||
            !list_ends(policy.overrides, sizeof(Limit))) {
            return false;
        }
    }
    return true;
}

uint64_t PolicyWriter::policy_bytes(const PolicyText& text) {
    const auto list_bytes = [](size_t bytes) { return bytes == 0 ? 0 : sizeof(PolicyList) + bytes; };
    return DetailsWriter::name_bytes(text.plan) + list_bytes(text.addresses.size_bytes()) +
           list_bytes(text.overrides.size_bytes());
}

uint64_t PolicyWriter::plan_bytes(std::string_view name, size_t limits) {
    return DetailsWriter::name_bytes(name) + sizeof(PolicyList) + limits * sizeof(Limit);
}

}  // namespace apikey::shm
