// The examples that are installed are read by the code that reads the real files.

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/instance_place.h"
#include "source/config_yaml.h"
#include "source/yaml_source.h"

namespace apikeyd {
namespace {

std::string text_of(const std::string& name) {
    std::ifstream file(APIKEYD_EXAMPLES "/" + name);
    std::ostringstream text;
    text << file.rdbuf();
    EXPECT_TRUE(file) << name;
    return text.str();
}

TEST(Examples, TheConfigurationIsValidAndShowsTheDefaults) {
    const auto example = parse_config(text_of("apikeyd.yaml.example"), "/etc/apikeyd/apikeyd.yaml");
    ASSERT_TRUE(example) << example.error().message;
    const Config defaults;
    EXPECT_EQ(example->instance, defaults.instance);
    EXPECT_EQ(example->directory, default_directory(0));
    EXPECT_EQ(example->log.format, defaults.log.format);
    EXPECT_EQ(example->log.level, defaults.log.level);
    EXPECT_EQ(example->audit_log.format, defaults.audit_log.format);
    EXPECT_EQ(example->audit_log.file, "/var/log/apikeyd/audit.log");  // as apikeyd.logrotate has it
    EXPECT_EQ(example->denial_log.format, defaults.denial_log.format);
    EXPECT_EQ(example->denial_log.file, "/var/log/apikeyd/denials.log");
    EXPECT_EQ(example->denial_log.per_second, defaults.denial_log.per_second);
    EXPECT_EQ(example->reload.debounce_ms, defaults.reload.debounce_ms);
    EXPECT_EQ(example->reload.poll_ms, defaults.reload.poll_ms);
    EXPECT_EQ(example->reload.max_loss_percent, defaults.reload.max_loss_percent);
    EXPECT_EQ(example->snapshot.file, "/var/lib/apikeyd/keys.snapshot");
    EXPECT_EQ(example->snapshot.max_age_h, defaults.snapshot.max_age_h);
    EXPECT_EQ(example->flush_interval_ms, defaults.flush_interval_ms);
    EXPECT_EQ(example->heartbeat_interval_ms, defaults.heartbeat_interval_ms);
    EXPECT_EQ(example->capacity_keys, defaults.capacity_keys);
    EXPECT_EQ(example->event_loop, defaults.event_loop);
}

TEST(Examples, TheKeySetIsValid) {
    const auto rows = parse_key_rows(text_of("keys.yaml.example"), "keys.yaml");
    ASSERT_TRUE(rows) << rows.error().message;
    ASSERT_EQ(rows->size(), 2u);
    EXPECT_EQ((*rows)[0].state, KeyState::kActive);
    EXPECT_TRUE((*rows)[0].expires_s);
    EXPECT_EQ((*rows)[1].state, KeyState::kRevoked);
}

}  // namespace
}  // namespace apikeyd
