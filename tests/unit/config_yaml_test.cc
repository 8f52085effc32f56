#include "source/config_yaml.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/instance_place.h"

namespace apikeyd {
namespace {

const std::string kRequired =
    "source: yaml:/etc/apikeyd/keys.yaml\nusage: sqlite:/var/lib/apikeyd/usage.db\n";

std::string error_of(const std::string& text) {
    const auto config = parse_config(text, "/etc/apikeyd/c.yaml");
    EXPECT_FALSE(config) << text;
    return config ? "no error" : config.error().message;
}

/// The error of one more field, in line 3, behind the required ones.
std::string field_error(const std::string& line) {
    return error_of(kRequired + line + "\n");
}

TEST(source_ConfigYaml, Defaults) {
    const auto config = parse_config(kRequired, "/etc/apikeyd/c.yaml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->instance, "default");
    EXPECT_EQ(config->directory, default_directory(geteuid()));
    EXPECT_EQ(config->source.place, "/etc/apikeyd/keys.yaml");
    EXPECT_EQ(config->usage_path, "/var/lib/apikeyd/usage.db");
    EXPECT_EQ(config->clients_group, "");
    EXPECT_EQ(config->operators_group, "");
    EXPECT_EQ(config->log.format, LogFormat::logfmt);
    EXPECT_EQ(config->log.level, LogLevel::info);
    EXPECT_EQ(config->log.file, "");
    EXPECT_EQ(config->audit_log.format, LogFormat::logfmt);
    EXPECT_EQ(config->audit_log.file, "");
    EXPECT_EQ(config->denial_log.format, LogFormat::logfmt);
    EXPECT_EQ(config->denial_log.file, "");
    EXPECT_EQ(config->denial_log.per_second, kDenialsDefault);
    EXPECT_EQ(config->reload.debounce_ms, 100u);
    EXPECT_EQ(config->reload.poll_ms, 2000u);
    EXPECT_EQ(config->reload.max_loss_percent, 50u);
    EXPECT_EQ(config->snapshot.file, "");
    EXPECT_EQ(config->snapshot.max_age_h, 168u);
    EXPECT_EQ(config->retention.minutes_h, 48u);
    EXPECT_EQ(config->retention.hours_d, 90u);
    EXPECT_EQ(config->retention.days_d, 3660u);
    EXPECT_EQ(config->flush_interval_ms, 1000u);
    EXPECT_EQ(config->heartbeat_interval_ms, 1000u);
    EXPECT_EQ(config->capacity_keys, 0u);
    EXPECT_EQ(config->event_loop, LoopKind::automatic);
    EXPECT_EQ(default_directory(0), "/run/apikeyd");
    EXPECT_EQ(default_directory(1000), "/dev/shm/apikeyd-1000");
}

TEST(source_ConfigYaml, EveryField) {
    const auto config = parse_config(
        "instance: blue-2\ndirectory: run/x\nsource: yaml:keys.yaml\nusage: sqlite:../usage.db\n"
        "clients_group: apikey\noperators_group: apikey-ops\n"
        "log: {format: json, level: error, file: log/a.log}\n"
        "audit_log: {format: json, file: log/audit.log}\n"
        "denial_log: {format: json, file: log/denials.log, per_second: 7}\n"
        "reload:\n  debounce_ms: 0\n  poll_ms: 100\n  max_loss_percent: 100\n"
        "snapshot: {file: ../lib/keys.snapshot, max_age_h: 24}\n"
        "retention: {minutes_h: 1, hours_d: 36600, days_d: 365}\n"
        "flush_interval_ms: 10\nheartbeat_interval_ms: 60000\ncapacity: 1000000\nevent_loop: epoll\n",
        "/etc/apikeyd/c.yaml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->instance, "blue-2");
    EXPECT_EQ(config->directory, "/etc/apikeyd/run/x");
    EXPECT_EQ(config->source.place, "/etc/apikeyd/keys.yaml");
    EXPECT_EQ(config->usage_path, "/etc/usage.db");
    EXPECT_EQ(config->clients_group, "apikey");
    EXPECT_EQ(config->operators_group, "apikey-ops");
    EXPECT_EQ(config->log.format, LogFormat::json);
    EXPECT_EQ(config->log.level, LogLevel::error);
    EXPECT_EQ(config->log.file, "/etc/apikeyd/log/a.log");
    EXPECT_EQ(config->audit_log.format, LogFormat::json);
    EXPECT_EQ(config->audit_log.file, "/etc/apikeyd/log/audit.log");
    EXPECT_EQ(config->denial_log.format, LogFormat::json);
    EXPECT_EQ(config->denial_log.file, "/etc/apikeyd/log/denials.log");
    EXPECT_EQ(config->denial_log.per_second, 7U);
    EXPECT_EQ(config->reload.debounce_ms, 0u);
    EXPECT_EQ(config->reload.poll_ms, 100u);
    EXPECT_EQ(config->reload.max_loss_percent, 100u);
    EXPECT_EQ(config->retention.minutes_h, 1u);
    EXPECT_EQ(config->retention.hours_d, 36600u);
    EXPECT_EQ(config->retention.days_d, 365u);
    EXPECT_EQ(config->snapshot.file, "/etc/lib/keys.snapshot");
    EXPECT_EQ(config->snapshot.max_age_h, 24u);
    EXPECT_EQ(config->flush_interval_ms, 10u);
    EXPECT_EQ(config->heartbeat_interval_ms, 60000u);
    EXPECT_EQ(config->capacity_keys, 1000000u);
    EXPECT_EQ(config->event_loop, LoopKind::epoll);
}

TEST(source_ConfigYaml, WrongValues) {
    const std::string at = "/etc/apikeyd/c.yaml:3:";
    EXPECT_EQ(field_error("instance: Blue"),
              at + "11: instance: 'Blue' is no instance name (want 1 to 32 characters a-z0-9-)");
    EXPECT_EQ(field_error("instance: ../x"),
              at + "11: instance: '../x' is no instance name (want 1 to 32 characters a-z0-9-)");
    EXPECT_EQ(field_error("directory: \"a\\nb\""),
              at + "12: directory: 'a\\u000Ab' is no path (want 1 to 4095 bytes without control characters)");
    EXPECT_EQ(field_error("clients_group: a b"),
              at + "16: clients_group: 'a b' is no group name (want 1 to 32 characters A-Za-z0-9_.-)");
    EXPECT_EQ(field_error("operators_group: -x"),
              at + "18: operators_group: '-x' is no group name (want 1 to 32 characters A-Za-z0-9_.-)");
    EXPECT_EQ(field_error("flush_interval_ms: 9"),
              at + "20: flush_interval_ms: '9' (want a whole number from 10 to 600000)");
    EXPECT_EQ(field_error("heartbeat_interval_ms: 60001"),
              at + "24: heartbeat_interval_ms: '60001' (want a whole number from 10 to 60000)");
    EXPECT_EQ(field_error("capacity: -1"),
              at + "11: capacity: '-1' (want a whole number from 0 to 1000000000)");
    EXPECT_EQ(field_error("capacity: 1e3"),
              at + "11: capacity: '1e3' (want a whole number from 0 to 1000000000)");
    EXPECT_EQ(field_error("capacity: 99999999999999999999"),
              at + "11: capacity: '99999999999999999999' (want a whole number from 0 to 1000000000)");
    EXPECT_EQ(field_error("capacity: '5'"),
              at + "11: capacity: '5' (want a whole number from 0 to 1000000000)");
    EXPECT_EQ(field_error("event_loop: kqueue"),
              at + "13: event_loop: 'kqueue' (want one of auto, io_uring, epoll)");
    EXPECT_EQ(field_error("log: {format: xml}"), at + "15: log.format: 'xml' (want one of logfmt, json)");
    EXPECT_EQ(field_error("audit_log: {format: csv}"),
              at + "21: audit_log.format: 'csv' (want one of logfmt, json)");
    EXPECT_EQ(field_error("denial_log: {format: csv}"),
              at + "22: denial_log.format: 'csv' (want one of logfmt, json)");
    EXPECT_EQ(field_error("snapshot: {max_age_h: 0}"),
              at + "23: snapshot.max_age_h: '0' (want a whole number from 1 to 87600)");
    EXPECT_EQ(field_error("denial_log: {per_second: 1001}"),
              at + "26: denial_log.per_second: '1001' (want a whole number from 1 to 1000)");
    EXPECT_EQ(field_error("log: {level: loud}"),
              at + "14: log.level: 'loud' (want one of debug, info, warning, error)");
    EXPECT_EQ(field_error("reload: {max_loss_percent: 101}"),
              at + "28: reload.max_loss_percent: '101' (want a whole number from 0 to 100)");
    EXPECT_EQ(field_error("reload: {poll_ms: 99}"),
              at + "19: reload.poll_ms: '99' (want a whole number from 100 to 3600000)");
    EXPECT_EQ(field_error("retention: {hours_d: 0}"),
              at + "22: retention.hours_d: '0' (want a whole number from 1 to 36600)");
    EXPECT_EQ(field_error("reload: {debounce_ms: 60001}"),
              at + "23: reload.debounce_ms: '60001' (want a whole number from 0 to 60000)");
}

TEST(source_ConfigYaml, ALogHasAFileOfItsOwn) {
    const std::string at = "/etc/apikeyd/c.yaml:3:";
    EXPECT_EQ(field_error("audit_log: {file: ./keys.yaml}"),
              at + "19: audit_log.file: is the file of source as well (want a file of its own)");
    EXPECT_EQ(field_error("log: {file: c.yaml}"),
              at + "13: log.file: is the file of the configuration as well (want a file of its own)");
    EXPECT_EQ(field_error("denial_log: {file: c.yaml}"),
              at + "20: denial_log.file: is the file of the configuration as well (want a file of its own)");
    EXPECT_EQ(field_error("audit_log: {file: a.log}\ndenial_log: {file: x/../a.log}"),
              at + "19: audit_log.file: is the file of denial_log.file as well (want a file of its own)");
    EXPECT_EQ(field_error("snapshot: {file: keys.yaml}"),
              at + "18: snapshot.file: is the file of source as well (want a file of its own)");
    EXPECT_EQ(
        field_error("snapshot: {file: a.log}\nlog: {file: a.log}"),
        "/etc/apikeyd/c.yaml:4:13: log.file: is the file of snapshot.file as well (want a file of its own)");
    EXPECT_EQ(field_error("audit_log: {file: a.log}\nlog: {file: x/../a.log}"),
              at + "19: audit_log.file: is the file of log.file as well (want a file of its own)");
}

TEST(source_ConfigYaml, Door) {
    const auto none = parse_config(kRequired, "/etc/apikeyd/c.yaml");
    ASSERT_TRUE(none) << none.error().message;
    EXPECT_EQ(none->door.address, "");
    const auto tls = parse_config(
        kRequired + "door: {listen: '[2001:db8::1]:8443', certificate: tls/c.pem, key: tls/k.pem}\n",
        "/etc/apikeyd/c.yaml");
    ASSERT_TRUE(tls) << tls.error().message;
    EXPECT_EQ(tls->door.address, "2001:db8::1");
    EXPECT_EQ(tls->door.port, 8443);
    EXPECT_TRUE(tls->door.tls);
    EXPECT_EQ(tls->door.certificate, "/etc/apikeyd/tls/c.pem");
    EXPECT_EQ(tls->door.key, "/etc/apikeyd/tls/k.pem");
    for (const char* loopback : {"127.0.0.1:0", "127.9.8.7:80", "'[::1]:8443'"}) {
        const auto clear = parse_config(kRequired + "door: {listen: " + loopback + ", tls: off}\n", "c.yaml");
        ASSERT_TRUE(clear) << clear.error().message;
        EXPECT_FALSE(clear->door.tls);
    }
}

TEST(source_ConfigYaml, DoorsThatWouldSendKeysInTheClear) {
    const std::string at = "/etc/apikeyd/c.yaml:3:";
    for (const char* wrong : {"localhost:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:80x",
                              "::1:80", "127.1:80", "[127.0.0.1]:80", ":80"}) {
        EXPECT_EQ(
            field_error("door: {listen: '" + std::string(wrong) + "', tls: off}"),
            at + "16: door.listen: '" + wrong + "' (want ADDRESS:PORT, as 127.0.0.1:8443 or [::1]:8443)");
    }
    EXPECT_EQ(
        field_error("door: {tls: off, listen: 0.0.0.0:80}"),
        at + "13: door.tls: off, and door.listen is no loopback address (want a certificate and a key)");
    EXPECT_EQ(field_error("door: {listen: 127.0.0.1:80, key: k.pem}"),
              at + "16: door.listen: door.certificate is missing (required; on a loopback address tls: off "
                   "does without)");
    EXPECT_EQ(field_error("door: {listen: 127.0.0.1:80, certificate: c.pem}"),
              at + "16: door.listen: door.key is missing (required; on a loopback address tls: off does "
                   "without)");
    EXPECT_EQ(field_error("door: {tls: off}"), "door.listen: missing (required with the rest of door)");
    EXPECT_EQ(field_error("door: {listen: 127.0.0.1:80, tls: maybe}"),
              at + "35: door.tls: 'maybe' (want one of on, off)");
}

TEST(source_ConfigYaml, WrongShapes) {
    const std::string at = "/etc/apikeyd/c.yaml:3:";
    EXPECT_EQ(field_error("colour: [red, {a: b}]"),
              at + "1: unknown field 'colour' (want one of audit_log, capacity, clients_group, denial_log, "
                   "directory, door, "
                   "event_loop, "
                   "flush_interval_ms, heartbeat_interval_ms, host, instance, log, operators_group, reload, "
                   "retention, snapshot, source, usage)");
    EXPECT_EQ(field_error("log: {colour: red}"),
              at + "7: unknown field 'log.colour' (want one of file, format, level)");
    EXPECT_EQ(field_error("audit_log: {level: info}"),
              at + "13: unknown field 'audit_log.level' (want one of file, format)");
    EXPECT_EQ(field_error("log.level: info").substr(0, 50), at + "1: unknown field 'log.level'");
    EXPECT_EQ(field_error("instance: a\ninstance: b"),
              "/etc/apikeyd/c.yaml:4:1: instance: stands twice (want it once)");
    EXPECT_EQ(field_error("instance: [a, [b]]"), at + "11: instance: a list (want a single value)");
    EXPECT_EQ(field_error("instance: {a: {b: c}}"), at + "11: instance: a mapping (want a single value)");
    EXPECT_EQ(field_error("instance:"),
              at + "1: instance: no value (want one, or leave the field out for its default)");
    EXPECT_EQ(field_error("log: verbose"),
              at + "6: log: no mapping (want {name: value, ...}, or leave it out)");
    EXPECT_EQ(field_error("reload: [1]"), at + "9: reload: a list (want a mapping)");
    EXPECT_EQ(field_error("? [a]\n: b"),
              at + "3: a list or a mapping as a field's name (want 'name: value' lines)");
    const std::string want = " (want 'name: value' lines)";
    EXPECT_EQ(error_of(""), "/etc/apikeyd/c.yaml:1:1: the configuration is empty or a single value" + want);
    EXPECT_EQ(error_of("x\n"),
              "/etc/apikeyd/c.yaml:1:1: the configuration is empty or a single value" + want);
    EXPECT_EQ(error_of("- x\n"), "/etc/apikeyd/c.yaml:1:1: the configuration is a list" + want);
}

TEST(source_ConfigYaml, SourcesAndStores) {
    EXPECT_EQ(error_of("instance: a\n"),
              "/etc/apikeyd/c.yaml:1:1: source: missing (required)\n/etc/apikeyd/c.yaml:1:1: usage: missing "
              "(required)");
    EXPECT_EQ(
        error_of("source: /k.yaml\nusage: 'sqlite:'\n"),
        "/etc/apikeyd/c.yaml:1:9: source: '/k.yaml' (want yaml:PATH, sqlite:PATH or "
        "postgresql://HOST/DATABASE)\n"
        "/etc/apikeyd/c.yaml:2:8: usage: '' is no path (want 1 to 4095 bytes without control characters)");
}

TEST(source_ConfigYaml, ErrorsDoNotEndTheReading) {
    EXPECT_EQ(field_error("capacity: x\nlog: {level: y, format: json}\nreload: {a: 1}"),
              "/etc/apikeyd/c.yaml:3:11: capacity: 'x' (want a whole number from 0 to 1000000000)\n"
              "/etc/apikeyd/c.yaml:4:14: log.level: 'y' (want one of debug, info, warning, error)\n"
              "/etc/apikeyd/c.yaml:5:10: unknown field 'reload.a' (want one of debounce_ms, "
              "max_loss_percent, poll_ms)");
}

TEST(source_ConfigYaml, LoadsAFileAndNamesWhatItCannotRead) {
    char name[] = "/tmp/apikeyd-config-test.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    const std::string directory = name;
    std::ofstream(directory + "/c.yaml") << "source: yaml:keys.yaml\nusage: sqlite:u.db\n";
    const auto config = load_config(directory + "/c.yaml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->source.place, directory + "/keys.yaml");
    EXPECT_EQ(load_config(directory + "/none.yaml").error().message,
              directory + "/none.yaml: cannot open: No such file or directory");
    EXPECT_EQ(load_config(directory).error().message, directory + ": no regular file (want a text file)");
    ASSERT_EQ(mkfifo((directory + "/pipe").c_str(), 0600), 0);
    EXPECT_EQ(load_config(directory + "/pipe").error().message,
              directory + "/pipe: no regular file (want a text file)");
    std::ofstream(directory + "/big.yaml") << std::string((1u << 20) + 1, '#');
    EXPECT_EQ(load_config(directory + "/big.yaml").error().message,
              directory + "/big.yaml: more than 1048576 bytes (the limit)");
    std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace apikeyd
