// A real daemon with some keys, for the tests of what single faults do to it and to its clients.

#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "support/daemon_process.h"
#include "support/site.h"

namespace apikeyd::test {

inline constexpr size_t kKeys = 100;
inline constexpr size_t kNameBytes = 200;  // a table has room for few changes of all names

inline constexpr char kRevoked[] = ", state: revoked";

inline std::string cells_name(uint32_t generation) {
    return "cells." + std::to_string(generation);
}
inline std::string table_name(uint32_t generation) {
    return "table." + std::to_string(generation);
}

/// A daemon with some keys, and who operates it.
class Faults : public testing::Test {
  protected:
    explicit Faults(const std::string& more = "flush_interval_ms: 20\nheartbeat_interval_ms: 20\n")
        : site_(more), daemon_(site_.config()) {
        for (size_t i = 0; i < kKeys; ++i) {
            keys_.push_back(draw_key(random_));
        }
        write_keys();
    }
    ~Faults() override {
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
    }
    void start() {
        daemon_.start();
        daemon_.wait_ready();
        first_ = site_.await_applied();
    }

    void write_keys() {
        std::string rows;
        for (size_t i = 0; i < keys_.size(); ++i) {
            rows += keys_[i].row(", name: " + std::string(kNameBytes, name_) + more_[i]);
        }
        site_.write_keys(rows);
    }
    /// Changes every key's name.
    void rename_keys() {
        name_ = name_ == 'z' ? 'a' : static_cast<char>(name_ + 1);
        write_keys();
    }
    /// Has another generation built, by changes until they find no room in this one. Returns its number.
    uint32_t next_generation() {
        const uint32_t before = site_.await_applied();
        for (uint32_t now = before;;) {
            rename_keys();
            now = site_.await_applied();
            if (now != before) {
                return now;
            }
        }
    }
    int revoke(size_t key) {
        more_[key] = kRevoked;
        return site_.tool("revoke " + keys_[key].id).status;
    }
    bool there(const std::string& segment) const { return std::filesystem::exists(site_.segment(segment)); }

    apikey_verdict ask(apikey_client* client, size_t key) {
        apikey_verdict verdict;
        apikey_validate(client, keys_[key].text.data(), keys_[key].text.size(), &verdict);
        made_[apikey_code_name(verdict.code)] += 1;
        return verdict;
    }
    apikey_code code(apikey_client* client, size_t key) { return ask(client, key).code; }
    /// What the store has of each code must be what ask() made, and `elsewhere` of VALID.
    void expect_all_counted(uint64_t elsewhere = 0) {
        std::map<std::string, uint64_t> made = made_;
        made["VALID"] += elsewhere;
        made.erase("UNAVAILABLE");  // a client without a table has nowhere to count
        std::map<std::string, uint64_t> told = site_.totals().by_code;
        told.erase("UNAVAILABLE");
        std::erase_if(told, [](const auto& code) { return code.second == 0; });
        EXPECT_EQ(told, made);
    }

    std::minstd_rand random_{1};
    std::vector<PlainKey> keys_;
    std::map<size_t, std::string> more_;  ///< what a key's row says besides
    char name_ = 'a';
    Site site_;
    DaemonProcess daemon_;
    uint32_t first_ = 0;  ///< generation
    std::map<std::string, uint64_t> made_;
};

}  // namespace apikeyd::test
