#include "core/audit_log.h"

#include <pwd.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace apikeyd {

namespace {

constexpr std::string_view kOperator = "operator";
constexpr std::string_view kSource = "source";

/// By /etc/passwd alone: other directories of users may be slow, or away. Empty when it is not there.
std::string local_user_name(uid_t uid) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/etc/passwd", "re"), std::fclose);
    std::vector<char> buffer(4096);
    passwd entry{};
    passwd* found = nullptr;
    while (file != nullptr && fgetpwent_r(file.get(), &entry, buffer.data(), buffer.size(), &found) == 0) {
        if (found->pw_uid == uid) {
            return found->pw_name;
        }
    }
    return {};
}

}  // namespace

/// One line, put together. What is given as text outlives it.
class AuditLog::Line {
  public:
    Line(std::string_view event, const Peer* by, std::string_view actor) : event_(event) {
        add("actor", actor);
        if (by == nullptr) {
            return;
        }
        add("uid", by->uid);
        add("gid", by->gid);
        add("pid", by->pid);
        user_ = local_user_name(by->uid);
        if (!user_.empty()) {
            add("user", user_);
        }
    }
    Line(const Line&) = delete;
    Line& operator=(const Line&) = delete;

    template <typename T>
    void add(std::string_view name, const T& value) {
        fields_.emplace_back(name, value);
    }
    template <typename T>
    void add_result(const Result<T>& result) {
        result_ = result ? "ok" : result.error().message;
        level_ = result ? LogLevel::info : LogLevel::warn;
        add("result", result_);
    }
    void add_report(const ReloadReport& report) {
        add("keys", report.keys);
        add("added", report.added);
        add("updated", report.updated);
        add("removed", report.removed);
    }

    void write_to(SideLog& log) const { log.write(level_, event_, fields_); }

  private:
    std::string_view event_;
    LogLevel level_ = LogLevel::info;
    std::string user_;
    std::string result_;
    std::vector<LogField> fields_;
};

void AuditLog::changed(const Peer* by, const AuditEntry& entry, const Result<void>& result,
                       std::string_view on_behalf_of) {
    if (!on()) {
        return;
    }
    Line line(entry.action, by, by != nullptr ? kOperator : kSource);
    if (!on_behalf_of.empty()) {
        line.add("on_behalf_of", on_behalf_of);
    }
    line.add("id", entry.id);
    line.add_result(result);
    for (const auto& [name, value] : entry.fields) {
        line.add(name, value);
    }
    line.write_to(log_);
}

void AuditLog::reloaded(const Peer& by, bool force, const Result<ReloadReport>& result) {
    if (!on()) {
        return;
    }
    Line line("reload", &by, kOperator);
    line.add("force", force);
    line.add_result(result);
    if (result) {
        line.add("unchanged", result->unchanged);
        line.add_report(*result);
    }
    line.write_to(log_);
}

void AuditLog::loaded(const Load& load, const Result<void>& result) {
    if (!on()) {
        return;
    }
    Line line("source.load", nullptr, kSource);
    line.add("source", load.source->place());
    line.add_result(result);
    if (load.error.empty()) {
        line.add_report(load.report);
        line.add("left_out", load.audit.left_out());
    }
    line.write_to(log_);
}

void AuditLog::refused(const Peer& by, std::string_view request, std::string_view id, uint64_t left_out) {
    if (!on()) {
        return;
    }
    Line line("admin.refused", &by, "other");
    line.add("request", request);
    if (!id.empty()) {
        line.add("id", id);
    }
    line.add_result(Result<void>(fail("not permitted")));
    line.add("left_out", left_out);
    line.write_to(log_);
}

}  // namespace apikeyd
