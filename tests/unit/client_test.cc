// What the client answers: verdicts, counts, descriptions, options. Switching and threads:
// client_switch_test.cc.

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "client/client.h"
#include "tests/support/child.h"
#include "tests/unit/client_fixture.h"

namespace {

using namespace apikey::test;
using apikey::shm::Meta;
using apikey::shm::SlotState;

constexpr uint64_t kPast_s = 1000000000;
constexpr uint64_t kFuture_s = 4000000000;

std::string numbered(std::string text, uint64_t number) {
    return text.append(std::to_string(number));
}

/// A native key with one character of its secret changed: the checksum does not fit any more.
std::string mistyped(const TestKey& key) {
    std::string text = key.text;
    char& c = text[text.size() - 10];
    c = c == 'x' ? 'y' : 'x';
    return text;
}

TEST(Client, AnswersEachCode) {
    TestInstance instance;
    TestClient client(instance);
    ASSERT_EQ(client.result, APIKEY_OK);
    const TestKey valid = make_key();
    const TestKey revoked = make_key();
    const TestKey disabled = make_key();
    const TestKey expired = make_key();
    const TestKey expiring = make_key("ak_test");
    const TestKey removed = make_key();
    ASSERT_TRUE(instance.add(valid));
    ASSERT_TRUE(instance.add(revoked, {.state = SlotState::kRevoked}));
    ASSERT_TRUE(instance.add(disabled, {.state = SlotState::kDisabled}));
    ASSERT_TRUE(instance.add(expired, {.expires_s = kPast_s}));
    ASSERT_TRUE(instance.add(expiring, {.expires_s = kFuture_s}));
    ASSERT_TRUE(instance.add(removed));
    instance.set_state(removed, SlotState::kDead);

    EXPECT_EQ(client.code(valid), APIKEY_VALID);
    EXPECT_EQ(client.code(revoked), APIKEY_REVOKED);
    EXPECT_EQ(client.code(disabled), APIKEY_DISABLED);
    EXPECT_EQ(client.code(expired), APIKEY_EXPIRED);
    EXPECT_EQ(client.code(expiring), APIKEY_VALID);
    EXPECT_EQ(client.code(removed), APIKEY_NOT_FOUND);
    EXPECT_EQ(client.code(make_key()), APIKEY_NOT_FOUND);
    EXPECT_EQ(client.code(mistyped(valid)), APIKEY_MALFORMED);
    EXPECT_EQ(client.code(""), APIKEY_MALFORMED);
    EXPECT_EQ(client.code(std::string(APIKEY_KEY_MAX, 'k')), APIKEY_NOT_FOUND);
    EXPECT_EQ(client.code(std::string(APIKEY_KEY_MAX + 1, 'k')), APIKEY_MALFORMED);
    EXPECT_EQ(client.code("short"), APIKEY_NOT_FOUND);

    EXPECT_EQ(client.verdict(expired.text).expires_at, static_cast<int64_t>(kPast_s));
    EXPECT_EQ(client.verdict(expiring.text).expires_at, static_cast<int64_t>(kFuture_s));
    EXPECT_EQ(client.verdict(valid.text).expires_at, 0) << "never";
    EXPECT_EQ(client.verdict(valid.text).key_id, valid.id);
    EXPECT_EQ(client.verdict(valid.text).flags, 0u);
}

TEST(Client, EveryFieldOfAVerdictIsSetWhateverTheAnswer) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    for (const std::string& text : {std::string(), make_key().text, mistyped(key), std::string(600, 'k')}) {
        apikey_verdict verdict;
        std::memset(&verdict, 0xee, sizeof verdict);
        apikey_validate(client.handle, text.data(), text.size(), &verdict);
        EXPECT_EQ(verdict.flags, 0u);
        EXPECT_EQ(verdict.expires_at, 0);
        EXPECT_STREQ(verdict.key_id, "");
        EXPECT_EQ(verdict.ref[0] | verdict.ref[1] | verdict.ref[2] | verdict.ref[3], 0u);
    }
}

TEST(Client, FollowsAKeyThroughItsStates) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey key = make_key();
    EXPECT_EQ(client.code(key), APIKEY_NOT_FOUND);
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    instance.set_state(key, SlotState::kDisabled);
    EXPECT_EQ(client.code(key), APIKEY_DISABLED);
    instance.set_state(key, SlotState::kActive);
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    instance.set_expiry(key, kPast_s);
    EXPECT_EQ(client.code(key), APIKEY_EXPIRED);
    instance.set_expiry(key, Meta::kNever);
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    instance.set_state(key, SlotState::kRevoked);
    EXPECT_EQ(client.code(key), APIKEY_REVOKED);
    instance.set_state(key, SlotState::kDead);
    EXPECT_EQ(client.code(key), APIKEY_NOT_FOUND);
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    instance.set_state(key, SlotState::kElsewhere);
    EXPECT_EQ(client.code(key), APIKEY_UNAVAILABLE) << "this table cannot say it, and there is no newer one";
}

TEST(Client, FindsForeignKeysAlsoThoseThatLookNative) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey native = make_key();
    const TestKey foreign = make_foreign_key("sk-imported-0123456789abcdef");
    const TestKey native_looking = make_foreign_key(make_key("theirs").text);
    const TestKey wrong_checksum = make_foreign_key(mistyped(make_key("theirs")));
    const TestKey longest = make_foreign_key(std::string(APIKEY_KEY_MAX, 'z'));
    ASSERT_TRUE(instance.add(native));
    EXPECT_EQ(client.code(native_looking), APIKEY_NOT_FOUND) << "before any foreign key is there";
    EXPECT_EQ(client.code(wrong_checksum), APIKEY_MALFORMED);
    for (const TestKey& key : {foreign, native_looking, wrong_checksum, longest}) {
        ASSERT_TRUE(instance.add(key));
        EXPECT_EQ(client.code(key), APIKEY_VALID) << key.text;
        EXPECT_STREQ(client.verdict(key.text).key_id, "") << "what looks like an id in it is none";
    }
    EXPECT_EQ(client.code(native), APIKEY_VALID);
    EXPECT_EQ(client.code(make_key()), APIKEY_NOT_FOUND);
    instance.set_state(native_looking, SlotState::kRevoked);
    EXPECT_EQ(client.code(native_looking), APIKEY_REVOKED);
    instance.set_state(native_looking, SlotState::kDead);
    EXPECT_EQ(client.code(native_looking), APIKEY_NOT_FOUND);
    instance.set_state(native_looking, SlotState::kActive);
    EXPECT_EQ(client.code(native_looking), APIKEY_VALID);
}

// What anyone can guess is no key, even when a table says so.
TEST(Client, AKeyShorterThanItsMinimumIsNone) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey shortest = make_foreign_key(std::string(APIKEY_KEY_MIN, 's'));
    const TestKey too_short = make_foreign_key(std::string(APIKEY_KEY_MIN - 1, 's'));
    ASSERT_TRUE(instance.add(shortest));
    ASSERT_TRUE(instance.add(too_short));
    EXPECT_EQ(client.code(shortest), APIKEY_VALID);
    EXPECT_EQ(client.code(too_short), APIKEY_NOT_FOUND);
    const apikey_key keys[] = {{shortest.text.data(), shortest.text.size()},
                               {too_short.text.data(), too_short.text.size()},
                               {"", 0}};
    apikey_verdict verdicts[3];
    EXPECT_EQ(apikey_validate_many(client.handle, keys, 3, verdicts), 1u);
    EXPECT_EQ(verdicts[1].code, APIKEY_NOT_FOUND);
    EXPECT_EQ(verdicts[2].code, APIKEY_MALFORMED);
}

/// All kinds of keys, in a random order, some many times.
std::vector<std::string> random_mix(TestInstance& instance, size_t count) {
    std::vector<std::string> kinds = {"", std::string(600, 'l'), "short", mistyped(make_key())};
    const SlotState states[] = {SlotState::kActive, SlotState::kActive, SlotState::kActive,
                                SlotState::kRevoked, SlotState::kDisabled};
    for (int i = 0; i < 40; ++i) {
        TestKey key = i % 4 == 0 ? make_foreign_key(numbered("an-imported-key-", i)) : make_key();
        if (i % 5 != 4) {
            EXPECT_TRUE(instance.add(
                key, {.state = states[(i + i / 5) % 5], .expires_s = i % 7 == 0 ? kPast_s : kFuture_s}));
        }
        kinds.push_back(key.text);
    }
    std::mt19937 random(7);
    std::vector<std::string> mix;
    for (size_t i = 0; i < count; ++i) {
        mix.push_back(kinds[random() % kinds.size()]);
    }
    return mix;
}

TEST(Client, ABatchOfAnySizeAnswersLikeSingles) {
    TestInstance instance;
    TestClient client(instance);
    const std::vector<std::string> texts = random_mix(instance, 200);
    std::set<apikey_code> seen;
    for (const size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{3}, size_t{31}, size_t{32}, size_t{33},
                              size_t{64}, size_t{65}, size_t{200}}) {
        std::vector<apikey_key> keys;
        for (size_t i = 0; i < size; ++i) {
            keys.push_back({texts[i].data(), texts[i].size()});
        }
        std::vector<apikey_verdict> verdicts(size + 1);
        std::memset(verdicts.data(), 0xee, verdicts.size() * sizeof verdicts[0]);
        const size_t valid = apikey_validate_many(client.handle, keys.data(), size, verdicts.data());
        size_t expected_valid = 0;
        for (size_t i = 0; i < size; ++i) {
            const apikey_verdict single = client.verdict(texts[i]);
            ASSERT_EQ(verdicts[i].code, single.code) << i << " of " << size;
            ASSERT_EQ(verdicts[i].flags, single.flags);
            ASSERT_EQ(verdicts[i].expires_at, single.expires_at);
            ASSERT_STREQ(verdicts[i].key_id, single.key_id);
            ASSERT_EQ(std::memcmp(verdicts[i].ref, single.ref, sizeof single.ref), 0);
            expected_valid += single.code == APIKEY_VALID ? 1 : 0;
            seen.insert(single.code);
        }
        EXPECT_EQ(valid, expected_valid);
        uint32_t beyond;
        std::memcpy(&beyond, &verdicts[size].code, sizeof beyond);
        EXPECT_EQ(beyond, 0xeeeeeeeeu) << "nothing is written beyond the batch";
    }
    EXPECT_EQ(seen, (std::set<apikey_code>{APIKEY_VALID, APIKEY_MALFORMED, APIKEY_NOT_FOUND, APIKEY_REVOKED,
                                           APIKEY_DISABLED, APIKEY_EXPIRED}));
}

TEST(Client, ABatchFindsKeysFarFromTheirHomeLine) {
    TestInstance instance;
    TestClient client(instance);
    std::vector<TestKey> known;
    while (known.size() < 5000) {  // until the table is as full as it gets
        known.push_back(make_key());
        if (!instance.add(known.back())) {
            known.pop_back();
            break;
        }
    }
    const apikey::shm::TableView& table = instance.current().table().view();
    std::map<uint64_t, size_t> by_distance;  // in lines
    std::vector<apikey_key> batch;
    for (const TestKey& key : known) {
        const apikey::shm::Probe home(key.hash(table.hash_seed), table);
        const uint64_t index = TestInstance::slot_index(instance.current(), key);
        ++by_distance[(index / 2 + table.line_count() - home.first() / 2) % table.line_count()];
        batch.push_back({key.text.data(), key.text.size()});
    }
    ASSERT_GT(by_distance[1], 0u) << "nothing is tested";
    ASSERT_GT(by_distance[2], 0u) << "nothing is tested";
    std::vector<apikey_verdict> verdicts(batch.size());
    EXPECT_EQ(apikey_validate_many(client.handle, batch.data(), batch.size(), verdicts.data()), known.size());
    for (size_t i = 0; i < known.size(); ++i) {
        ASSERT_EQ(verdicts[i].code, APIKEY_VALID) << i;
        ASSERT_EQ(verdicts[i].ref[1], TestInstance::slot_index(instance.current(), known[i])) << i;
    }

    // Unknown keys walk as far.
    const std::vector<TestKey> unknown = make_keys(500);
    std::vector<apikey_key> strangers;
    strangers.reserve(unknown.size());
    for (const TestKey& key : unknown) {
        strangers.push_back({key.text.data(), key.text.size()});
    }
    EXPECT_EQ(apikey_validate_many(client.handle, strangers.data(), strangers.size(), verdicts.data()), 0u);
    for (size_t i = 0; i < unknown.size(); ++i) {
        ASSERT_EQ(verdicts[i].code, APIKEY_NOT_FOUND) << i;
    }
}

TEST(Client, CountsEveryAnswerOncePerKeyAndPerCode) {
    TestInstance instance;
    TestClient client(instance);
    const std::vector<std::string> texts = random_mix(instance, 500);
    std::map<std::string, std::pair<uint64_t, uint64_t>> by_key;  // allowed, denied
    std::map<int, uint64_t> by_code;
    std::vector<apikey_key> keys;
    keys.reserve(texts.size());
    std::vector<apikey_verdict> verdicts(texts.size());
    for (const std::string& text : texts) {
        keys.push_back({text.data(), text.size()});
    }
    const auto note = [&](const std::string& text, apikey_code code) {
        ++by_code[code];
        ++(code == APIKEY_VALID ? by_key[text].first : by_key[text].second);
    };
    for (const std::string& text : texts) {
        note(text, client.code(text));
    }
    apikey_validate_many(client.handle, keys.data(), keys.size(), verdicts.data());
    for (size_t i = 0; i < texts.size(); ++i) {
        note(texts[i], verdicts[i].code);
    }
    const auto& cells = instance.current().cells();
    for (uint32_t code = 0; code < apikey::shm::kCodesMax; ++code) {
        EXPECT_EQ(sum_code(cells, code), by_code[static_cast<int>(code)])
            << apikey_code_name(static_cast<apikey_code>(code));
    }
    uint64_t counted = 0;
    for (const auto& [text, expected] : by_key) {
        const apikey_verdict verdict = client.verdict(text);
        if (verdict.ref[0] != 0) {  // a known key
            const auto sums = sum_cell(cells, verdict.ref[1]);
            const uint64_t mine = verdict.code == APIKEY_VALID ? 1 : 0;
            EXPECT_EQ(sums.allowed, expected.first + mine);
            EXPECT_EQ(sums.denied, expected.second + 1 - mine);
            ++counted;
        }
    }
    EXPECT_EQ(counted, 32u) << "all keys of the table were drawn";
    std::set<uint64_t> swept;
    sweep_dirty(cells, [&](uint64_t first, uint64_t last) {
        for (uint64_t index = first; index < last; ++index) {
            const auto sums = sum_cell(cells, index);
            if (sums.allowed + sums.denied != 0) {
                swept.insert(index);
            }
        }
    });
    EXPECT_EQ(swept.size(), 32u) << "and each was marked for the sweep";
}

apikey_description describe(const TestClient& client, const apikey_verdict& verdict,
                            std::vector<char>& buffer, int expected) {
    apikey_description description;
    std::memset(&description, 0xee, sizeof description);
    description.size = sizeof description;
    EXPECT_EQ(apikey_describe(client.handle, &verdict, buffer.data(), buffer.size(), &description), expected);
    EXPECT_EQ(description.size, sizeof description);
    return description;
}

TEST(Client, DescribesAKey) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey key = make_key();
    const TestKey foreign = make_foreign_key("an-imported-key-0123456789");
    ASSERT_TRUE(instance.add(key, {.environment = "test",
                                   .owner = "acme",
                                   .name = "build server",
                                   .metadata = R"({"team":"a"})",
                                   .created_s = 1700000000}));
    ASSERT_TRUE(instance.add(foreign));
    std::vector<char> buffer(APIKEY_DESCRIPTION_MAX);
    const apikey_verdict verdict = client.verdict(key.text);
    const auto expect_described = [&] {
        const apikey_description found = describe(client, verdict, buffer, 1);
        EXPECT_EQ(found.key_id, key.id);
        EXPECT_STREQ(found.owner, "acme");
        EXPECT_STREQ(found.environment, "test");
        EXPECT_STREQ(found.name, "build server");
        EXPECT_STREQ(found.metadata, R"({"team":"a"})");
        EXPECT_EQ(found.created_at, 1700000000);
        EXPECT_GE(found.key_id, buffer.data());
        EXPECT_LT(found.metadata, buffer.data() + buffer.size());
    };
    expect_described();
    const apikey_verdict foreign_verdict = client.verdict(foreign.text);
    EXPECT_EQ(describe(client, foreign_verdict, buffer, 1).key_id, foreign.id);
    EXPECT_STREQ(describe(client, foreign_verdict, buffer, 1).owner, "");

    instance.publish_new_generation();
    expect_described();
    ASSERT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    expect_described();
    EXPECT_EQ(describe(client, foreign_verdict, buffer, 1).key_id, foreign.id);

    const apikey_verdict newer = client.verdict(key.text);
    instance.set_state(key, SlotState::kRevoked);
    EXPECT_EQ(describe(client, client.verdict(key.text), buffer, 1).key_id, key.id) << "known, and refused";
    instance.set_state(key, SlotState::kDead);
    for (const apikey_verdict& gone : {verdict, newer, client.verdict(make_key().text), client.verdict("")}) {
        const apikey_description nothing = describe(client, gone, buffer, 0);
        for (const char* text :
             {nothing.key_id, nothing.owner, nothing.environment, nothing.name, nothing.metadata}) {
            EXPECT_STREQ(text, "");
        }
        EXPECT_EQ(nothing.created_at, 0);
    }
}

TEST(Client, DescribesOnlyIntoABufferThatIsLargeEnough) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key, {.owner = "acme", .name = "n", .metadata = "{}"}));
    const apikey_verdict verdict = client.verdict(key.text);
    const size_t needed =
        12 + 1 + 4 + 1 + 4 + 1 + 1 + 1 + 2 + 1;  // id, owner, "live", name, metadata, five NULs
    for (size_t bytes = 0; bytes < needed; ++bytes) {
        std::vector<char> buffer(bytes);
        const apikey_description found = describe(client, verdict, buffer, -1);
        for (const char* text : {found.key_id, found.owner, found.environment, found.name, found.metadata}) {
            EXPECT_STREQ(text, "") << "never NULL, never half";
        }
    }
    std::vector<char> buffer(needed);
    EXPECT_STREQ(describe(client, verdict, buffer, 1).metadata, "{}");
}

TEST(Client, TheLargestDescriptionFitsTheDocumentedBuffer) {
    TestInstance instance({.capacity_keys = 100, .details_bytes = 1 << 20});
    TestClient client(instance);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key, {.environment = "fifteen-letters",
                                   .owner = std::string(apikey::shm::kDetailOwnerMax, 'o'),
                                   .name = std::string(apikey::shm::kDetailNameMax, 'n'),
                                   .metadata = std::string(apikey::shm::kDetailMetadataMax, 'm')}));
    std::vector<char> buffer(APIKEY_DESCRIPTION_MAX);
    EXPECT_EQ(std::strlen(describe(client, client.verdict(key.text), buffer, 1).metadata),
              apikey::shm::kDetailMetadataMax);
}

TEST(Client, AForgedVerdictDescribesNothing) {
    TestInstance instance;
    TestClient client(instance);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    const apikey_verdict good = client.verdict(key.text);
    std::vector<char> buffer(APIKEY_DESCRIPTION_MAX);
    for (const uint64_t index : {uint64_t{1} << 40, ~uint64_t{0}, good.ref[1] ^ 1}) {
        apikey_verdict forged = good;
        forged.ref[1] = index;
        describe(client, forged, buffer, 0);
    }
    apikey_verdict forged = good;
    forged.ref[2] ^= 1;
    describe(client, forged, buffer, 0);
}

TEST(Client, FlagsOrDeniesWhatIsStale) {
    TestInstance instance;
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient serve(instance);
    TestClient deny(instance, {.stale_policy = APIKEY_STALE_DENY});
    TestClient patient(instance, {.stale_policy = APIKEY_STALE_DENY, .stale_after_ms = 3600000});
    EXPECT_EQ(deny.code(key), APIKEY_VALID);
    instance.beat(60000);
    EXPECT_EQ(serve.verdict(key.text).code, APIKEY_VALID);
    EXPECT_EQ(serve.verdict(key.text).flags, APIKEY_FLAG_STALE);
    EXPECT_EQ(serve.verdict(make_key().text).flags, APIKEY_FLAG_STALE);
    EXPECT_EQ(serve.status().flags, APIKEY_FLAG_STALE);
    EXPECT_GE(serve.status().heartbeat_age_ms, 59900u);  // the coarse clock lags by a tick
    EXPECT_EQ(deny.verdict(key.text).code, APIKEY_UNAVAILABLE);
    EXPECT_EQ(deny.verdict(key.text).flags, APIKEY_FLAG_STALE);
    const apikey_key batch[] = {{key.text.data(), key.text.size()}, {"", 0}};
    apikey_verdict verdicts[2];
    EXPECT_EQ(apikey_validate_many(deny.handle, batch, 2, verdicts), 0u);
    EXPECT_EQ(verdicts[0].code, APIKEY_UNAVAILABLE);
    EXPECT_EQ(verdicts[1].code, APIKEY_UNAVAILABLE);
    EXPECT_EQ(patient.verdict(key.text).code, APIKEY_VALID);
    EXPECT_EQ(patient.verdict(key.text).flags, 0u);
    instance.beat();
    EXPECT_EQ(deny.code(key), APIKEY_VALID);
    EXPECT_EQ(serve.verdict(key.text).flags, 0u);
    // The clock was set back after the daemon died.
    instance.beat(-60000);
    EXPECT_EQ(serve.verdict(key.text).flags, APIKEY_FLAG_STALE);
    EXPECT_EQ(deny.code(key), APIKEY_UNAVAILABLE);
}

TEST(Client, CellsThatMayNotBeWrittenMeanNotCounted) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    TestInstance instance;
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    const uint32_t generation = instance.current().number();
    for (const std::string& name :
         {instance.path(), instance.file("control"), instance.file(numbered("table.", generation)),
          instance.file(numbered("cells.", generation))}) {
        ASSERT_EQ(chown(name.c_str(), static_cast<uid_t>(-1), 54321), 0);
    }
    ASSERT_EQ(chmod(instance.file(numbered("cells.", generation)).c_str(), 0640), 0);
    const int status = in_child([&] {
        if (setgroups(0, nullptr) != 0 || setgid(54321) != 0 || setuid(65534) != 0) {
            return 98;
        }
        TestClient client(instance);
        const apikey_verdict verdict = client.verdict(key.text);
        const apikey_verdict miss = client.verdict(make_key().text);
        return client.result == APIKEY_OK && verdict.code == APIKEY_VALID &&
                       verdict.flags == APIKEY_FLAG_NOT_COUNTED && miss.code == APIKEY_NOT_FOUND &&
                       miss.flags == APIKEY_FLAG_NOT_COUNTED &&
                       client.status().flags == APIKEY_FLAG_NOT_COUNTED
                   ? 0
                   : 1;
    });
    EXPECT_EQ(status, 0);
    EXPECT_EQ(sum_code(instance.current().cells(), APIKEY_VALID), 0u);
}

TEST(Client, StatusTellsWhatItIsAttachedTo) {
    TestInstance instance;
    TestClient client(instance);
    ASSERT_TRUE(instance.add(make_key()));
    instance.control().applied(0x1234, 1);
    const apikey_status_info info = client.status();
    EXPECT_EQ(info.attached, APIKEY_OK);
    EXPECT_STREQ(info.text, apikey_result_text(APIKEY_OK));
    EXPECT_EQ(info.generation, instance.current().number());
    EXPECT_EQ(info.keys, 1u);
    EXPECT_EQ(info.position, 1u);
    EXPECT_EQ(info.fingerprint, 0x1234u);
    EXPECT_LT(info.heartbeat_age_ms, 10000u);
    EXPECT_EQ(info.flags, 0u);
    EXPECT_STREQ(info.kernel, apikey::shm::sha256_kernel().name);
}

// -------------------------------------------------------------------------------------------- options and
// arguments

TEST(ClientOpen, BadArgumentsAreRefusedWithoutAClient) {
    TestInstance instance;
    const auto open_with = [&](auto change) {
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance.base().c_str();
        options.instance = "default";
        change(options);
        auto* client = reinterpret_cast<apikey_client*>(&options);
        const apikey_result result = apikey_open(&options, &client);
        EXPECT_EQ(client == nullptr, result == APIKEY_BAD_ARGUMENT);
        apikey_close(client);
        return result;
    };
    const std::string long_path(300, 'd');
    EXPECT_EQ(open_with([](apikey_options&) {}), APIKEY_OK);
    EXPECT_EQ(open_with([](apikey_options& o) { o.instance = ""; }), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(open_with([](apikey_options& o) { o.instance = ".."; }), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(open_with([](apikey_options& o) { o.instance = "a/b"; }), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(open_with([&](apikey_options& o) { o.directory = long_path.c_str(); }), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(open_with([](apikey_options& o) {
                  const int unknown = 2;  // as a C caller can
                  std::memcpy(&o.stale_policy, &unknown, sizeof unknown);
              }),
              APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(apikey_open(nullptr, nullptr), APIKEY_BAD_ARGUMENT);
    apikey_close(nullptr);
    EXPECT_STRNE(apikey_result_text(APIKEY_BAD_ARGUMENT), "unknown");
}

TEST(ClientOpen, TheExpectedOwnerIsChecked) {
    TestInstance instance;
    apikey_options options{};
    options.size = sizeof options;
    options.directory = instance.base().c_str();
    options.check_owner = 1;
    options.expected_owner = geteuid() + 1;
    apikey_client* client = nullptr;
    EXPECT_EQ(apikey_open(&options, &client), APIKEY_FOREIGN_OWNER);
    ASSERT_NE(client, nullptr);
    apikey_verdict verdict;
    EXPECT_EQ(apikey_validate(client, "k", 1, &verdict), APIKEY_UNAVAILABLE);
    apikey_close(client);
    options.expected_owner = geteuid();
    EXPECT_EQ(apikey_open(&options, &client), APIKEY_OK);
    apikey_close(client);
}

TEST(ClientOpen, ACallersStructsMayBeOlderOrNewerThanOurs) {
    TestInstance instance;
    instance.beat(60000);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    struct {
        apikey_options known;
        uint64_t of_a_later_version[4];
    } newer{};
    std::memset(&newer, 0xee, sizeof newer);
    newer.known = apikey_options{sizeof newer,
                                 instance.base().c_str(),
                                 "default",
                                 APIKEY_STALE_DENY,
                                 0,
                                 0,
                                 0,
                                 APIKEY_METERING_REQUIRED,
                                 nullptr};
    apikey_client* client = nullptr;
    ASSERT_EQ(apikey_open(&newer.known, &client), APIKEY_OK);
    apikey_verdict verdict;
    EXPECT_EQ(apikey_validate(client, key.text.data(), key.text.size(), &verdict), APIKEY_UNAVAILABLE);
    apikey_close(client);

    apikey_options older = newer.known;
    older.size = offsetof(apikey_options, stale_policy);  // its caller never heard of stale policies
    ASSERT_EQ(apikey_open(&older, &client), APIKEY_OK);
    EXPECT_EQ(apikey_validate(client, key.text.data(), key.text.size(), &verdict), APIKEY_VALID);

    apikey_client* none = nullptr;
    for (const size_t unset : {size_t{0}, size_t{15}, offsetof(apikey_options, stale_policy) - 1}) {
        apikey_options forgotten = newer.known;
        forgotten.size = unset;
        EXPECT_EQ(apikey_open(&forgotten, &none), APIKEY_BAD_ARGUMENT) << unset;
        EXPECT_EQ(none, nullptr);
    }

    apikey_status_info info;
    std::memset(&info, 0xee, sizeof info);
    info.size = offsetof(apikey_status_info, keys);
    apikey_status(client, &info);
    EXPECT_EQ(info.size, offsetof(apikey_status_info, keys));
    EXPECT_EQ(info.generation, instance.current().number());
    EXPECT_EQ(info.keys, 0xeeeeeeeeeeeeeeeeu) << "not known to this caller, so not touched";

    struct {
        apikey_status_info known;
        uint64_t of_a_later_version;
    } newer_info{{}, 42};
    newer_info.known.size = sizeof newer_info;
    apikey_status(client, &newer_info.known);
    EXPECT_EQ(newer_info.known.keys, 1u);
    EXPECT_EQ(newer_info.of_a_later_version, 42u);
    apikey_close(client);
}

TEST(ClientOpen, WithoutMemoryThereIsNoClient) {
    TestInstance instance;
    // A table too large for what address space is left; sparse, so nothing needs to be there.
    const std::string table = instance.file(numbered("table.", instance.current().number()));
    constexpr rlim_t kSpare = rlim_t{256} << 20;
    ASSERT_EQ(truncate(table.c_str(), off_t{4} * kSpare), 0);
    const int status = in_child([&] {
        uint64_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        const rlim_t limit = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + kSpare;
        const rlimit address_space{limit, limit};
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance.base().c_str();
        apikey_client* client = reinterpret_cast<apikey_client*>(&options);
        if (setrlimit(RLIMIT_AS, &address_space) != 0) {
            return 98;
        }
        const apikey_result result = apikey_open(&options, &client);
        return result != APIKEY_NO_MEMORY ? 1 : client != nullptr ? 2 : 0;
    });
    EXPECT_EQ(status, 0);
}

TEST(ClientOpen, AnotherUsersServerFindsTheHostsDaemonOrItsOwn) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    const int status = in_child([&] {
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            return 98;
        }
        apikey_client* client = nullptr;
        apikey_options options{};
        options.size = sizeof options;
        options.instance = "no-such-instance-of-a-test";
        const apikey_result result = apikey_open(&options, &client);
        if (result != APIKEY_WAITING || client == nullptr) {
            return 1;
        }
        if (std::string(client->directory) != "/run/apikeyd/no-such-instance-of-a-test" ||
            std::string(client->own_directory) != "/dev/shm/apikeyd-65534/no-such-instance-of-a-test") {
            return 2;
        }
        // The host's daemon may start later than the server: both places are looked at again each time. Here
        // the first is put where the test may write.
        TestInstanceOptions later;
        later.capacity_keys = 10;
        TestInstance host(later);
        snprintf(client->directory, sizeof client->directory, "%s", host.path().c_str());
        return apikey_refresh(client) == APIKEY_OK ? 0 : 3;
    });
    EXPECT_EQ(status, 0);
}

TEST(Names, AreTheOnesUsersKnow) {
    EXPECT_STREQ(apikey_code_name(APIKEY_VALID), "VALID");
    EXPECT_STREQ(apikey_code_name(APIKEY_INSUFFICIENT_PERMISSIONS), "INSUFFICIENT_PERMISSIONS");
    EXPECT_STREQ(apikey_code_name(APIKEY_UNAVAILABLE), "UNAVAILABLE");
    EXPECT_STREQ(apikey_code_name(APIKEY_SHADOW_USAGE_EXCEEDED), "SHADOW_USAGE_EXCEEDED");
    EXPECT_STREQ(apikey_code_name(static_cast<apikey_code>(13)), "UNKNOWN");
    EXPECT_STREQ(apikey_code_name(static_cast<apikey_code>(15)), "UNKNOWN");
    for (int result = 0; result <= APIKEY_UNKNOWN_SCOPE; ++result) {
        EXPECT_STRNE(apikey_result_text(static_cast<apikey_result>(result)), "unknown") << result;
    }
}

}  // namespace
