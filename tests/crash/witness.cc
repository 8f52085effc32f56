#include "tests/crash/witness.h"

#include <algorithm>
#include <fstream>

#include "support/no_descriptors.h"
#include "usage/usage_reader.h"

namespace apikey::crash {

Witness::~Witness() {
    leave();
}

apikey_client* Witness::open() const {
    const std::string base = site_.base();
    apikey_options options{};
    options.size = sizeof options;
    options.directory = base.c_str();
    apikey_client* client = nullptr;
    apikey_open(&options, &client);
    return client;
}

void Witness::attach() {
    moving_.push_back(open());
}

void Witness::attach_and_stay() {
    staying_.push_back(open());
}

void Witness::leave() {
    for (std::vector<apikey_client*>* clients : {&moving_, &staying_}) {
        for (apikey_client* client : *clients) {
            apikey_close(client);
        }
        clients->clear();
    }
}

void Witness::let_go() {
    for (std::vector<apikey_client*>* clients : {&moving_, &staying_}) {
        for (apikey_client* client : *clients) {
            apikey_refresh(client);  // maps what is current
            apikey_refresh(client);  // unmaps what was replaced meanwhile
        }
    }
}

std::string Witness::judge(apikey_client* client, const Key& key, Expected expected, bool stays) {
    apikey_verdict verdict;
    const apikey_code code = apikey_validate(client, key.text.data(), key.text.size(), &verdict);
    apikey_status_info info{};
    info.size = sizeof info;
    apikey_status(client, &info);
    if (info.generation != 0) {
        ++by_code_[code];
    }
    if (code == APIKEY_VALID) {
        ++by_id_[key.row.id].allowed;
    } else if (code == APIKEY_REVOKED || code == APIKEY_DISABLED || code == APIKEY_EXPIRED) {
        ++by_id_[key.row.id].denied;
    }
    ++judged_;
    // What cannot map the current generation cannot say that a key is not there, nor what is left of its
    // limits, and what came when there was no generation yet can say nothing.
    const bool may_not_know = code == APIKEY_UNAVAILABLE && (stays ? !key.steady || key.may_be_limited()
                                                                   : may_find_none_ && info.generation == 0);
    if ((expected == Expected::kValid && code != APIKEY_VALID && !may_not_know) ||
        (expected == Expected::kNotValid && code == APIKEY_VALID)) {
        return key.row.id + " (" + key.row.name + "): " + apikey_code_name(code) + ", in generation " +
               std::to_string(info.generation) + (stays ? ", by a server that cannot map another" : "") +
               ", attached: " + apikey_result_text(info.attached);
    }
    return {};
}

std::string Witness::round(const KeySet& keys, const std::vector<Expected>& expected) {
    std::string first;
    const auto all = [&](apikey_client* client, bool stays) {
        apikey_status_info info{};
        info.size = sizeof info;
        apikey_status(client, &info);
        if (info.generation == 0) {
            apikey_refresh(client);  // or it would look again only after a while
        }
        for (size_t i = 0; i < keys.keys().size(); ++i) {
            const std::string problem = judge(client, keys.keys()[i], expected[i], stays);
            first = first.empty() ? problem : first;
        }
    };
    for (apikey_client* client : moving_) {
        all(client, false);
    }
    const test::NoDescriptors none;
    for (apikey_client* client : staying_) {
        all(client, true);
    }
    return first;
}

std::string Witness::compare(const KeySet& keys) const {
    auto reader = apikeyd::UsageReader::open(site_.store());
    if (!reader) {
        return reader.error().message;
    }
    std::map<std::string, Counts> stored;
    const auto walked = reader->for_each_total([&](const apikeyd::KeyTotal& total) {
        stored[total.key_id] = {total.allowed, total.denied};
    });
    const auto codes = reader->codes();
    if (!walked || !codes) {
        return walked ? codes.error().message : walked.error().message;
    }
    const auto text = [](const Counts& counts) {
        return std::to_string(counts.allowed) + " allowed and " + std::to_string(counts.denied) + " denied";
    };
    for (const Key& key : keys.keys()) {
        ++judged_;
        const auto made = by_id_.find(key.row.id);
        const Counts tallied = made != by_id_.end() ? made->second : Counts{};
        if (stored[key.row.id] != tallied) {
            return key.row.id + ": the store says " + text(stored[key.row.id]) + ", the servers made " +
                   text(tallied);
        }
    }
    std::array<uint64_t, 16> told{};
    for (const apikeyd::CodeCount& code : *codes) {
        told[code.code] = code.total;
    }
    for (size_t code = 0; code < told.size(); ++code) {
        ++judged_;
        if (told[code] != by_code_[code]) {
            return std::string(apikey_code_name(static_cast<apikey_code>(code))) + ": the store says " +
                   std::to_string(told[code]) + ", the servers made " + std::to_string(by_code_[code]);
        }
    }
    return {};
}

std::string Witness::compare_denials(unsigned kills) const {
    std::array<uint64_t, 16> told{};
    std::array<uint64_t, 16> most{};  // in one line
    std::ifstream log(site_.denials());
    for (std::string line; std::getline(log, line);) {
        const auto field = [&line](const std::string& name) {
            const size_t at = line.find(' ' + name + '=');
            return at == std::string::npos
                       ? ""
                       : line.substr(at + name.size() + 2, line.find(' ', at + 1) - at - name.size() - 2);
        };
        const uint64_t count = field("event") == "denied" ? 1 : std::stoul(field("count"));
        for (size_t code = 0; code < told.size(); ++code) {
            if (field("code") == apikey_code_name(static_cast<apikey_code>(code))) {
                told[code] += count;
                most[code] = std::max(most[code], count);
            }
        }
    }
    for (size_t code = APIKEY_MALFORMED; code <= APIKEY_UNAVAILABLE; ++code) {
        ++judged_;
        if (told[code] < by_code_[code] || told[code] - by_code_[code] > kills * most[code]) {
            return std::string(apikey_code_name(static_cast<apikey_code>(code))) +
                   ": the denial log tells of " + std::to_string(told[code]) + ", the servers made " +
                   std::to_string(by_code_[code]);
        }
    }
    return {};
}

}  // namespace apikey::crash
