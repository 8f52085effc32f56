#include "tests/crash/choices.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "tests/crash/scenario.h"

namespace apikey::crash {
namespace {

/// What a system call can answer instead of doing its work.
struct Failure {
    Fate fate;
    int error;
    const char* name;
};
const std::vector<Failure>& failures_of(const std::string& call) {
    static const Failure kEio{Fate::kFail, EIO, "EIO"};
    static const Failure kEintr{Fate::kFail, EINTR, "EINTR"};
    static const Failure kEmfile{Fate::kFail, EMFILE, "EMFILE"};
    static const Failure kEnospc{Fate::kFail, ENOSPC, "ENOSPC"};
    static const Failure kEnomem{Fate::kFail, ENOMEM, "ENOMEM"};
    static const Failure kEnolck{Fate::kFail, ENOLCK, "ENOLCK"};
    static const Failure kEnosys{Fate::kFail, ENOSYS, "ENOSYS"};
    static const Failure kHalf{Fate::kHalf, 0, "half"};
    static const std::map<std::string, std::vector<Failure>> kFailures = {
        {"open", {kEmfile, kEintr, kEio}},
        {"create", {kEnospc, kEmfile, kEintr}},
        {"dup", {kEmfile}},
        {"fdopendir", {kEnomem}},
        {"readdir", {kEio}},
        {"lock", {kEnolck}},
        {"read", {kEio, kEintr, kHalf}},
        {"pread", {kEio, kEintr, kHalf}},
        {"write", {kEnospc, kEio, kEintr, kHalf}},
        {"pwrite", {kEnospc, kEio, kEintr, kHalf}},
        {"fsync", {kEio}},
        {"fdatasync", {kEio}},
        {"ftruncate", {kEio, kEintr}},
        {"fallocate", {kEnospc, kEintr}},
        {"fchmod", {kEio}},
        {"fchown", {kEio}},
        {"chmod", {kEio}},
        {"mkdir", {kEnospc}},
        {"rename", {kEnospc, kEio}},
        {"unlink", {kEio}},
        {"access", {kEio}},
        {"stat", {kEio}},
        {"fstat", {kEio}},
        {"fstatvfs", {kEio}},
        {"mmap", {kEnomem}},
        {"getrandom", {kEnosys}},
    };
    static const std::vector<Failure> kNone;
    const auto known = kFailures.find(call);
    return known != kFailures.end() ? known->second : kNone;
}

/// Indices of the points worth a kill.
std::set<uint32_t> kill_points(const std::vector<Listed>& points, Choose choose) {
    std::set<uint32_t> chosen;
    std::map<std::pair<std::string, uint8_t>, std::vector<uint32_t>> hits;
    for (uint32_t i = 0; i < points.size(); ++i) {
        const Listed& point = points[i];
        const bool changes = point.kind == Kind::kChange || point.kind == Kind::kWrite;
        if (choose == Choose::kFirstHits) {
            if (point.hit == 1 && point.kind != Kind::kLook) {
                chosen.insert(i);
            }
            continue;
        }
        hits[{point.place, point.kind == Kind::kLook ? uint8_t{0} : point.step}].push_back(i);
        if (choose == Choose::kAll || changes) {
            chosen.insert(i);
            chosen.insert(std::min<uint32_t>(i + 1, static_cast<uint32_t>(points.size()) - 1));
        }
    }
    for (const auto& [place, indices] : hits) {
        chosen.insert({indices.front(), indices[indices.size() / 2], indices.back()});
    }
    return chosen;
}

std::string call_of(const Listed& point) {
    return point.place.substr(0, point.place.find(' '));
}

std::string point_text(const std::vector<Listed>& points, uint32_t index) {
    return "point " + std::to_string(index) + ", " + points[index].text();
}

}  // namespace

std::string Listed::text() const {
    return place + ", hit " + std::to_string(hit) + ", in '" + step_name(step) + "'";
}

std::vector<Listed> listed(const Record& record) {
    std::vector<Listed> list;
    std::map<std::string, unsigned> hits;
    for (uint32_t i = 0; i < record.points.load(); ++i) {
        const Place& place = record.place[record.sequence[i].place];
        list.push_back({place.text, place.kind, record.sequence[i].step, ++hits[place.text]});
    }
    return list;
}

std::vector<Choice> choose_kills(const std::vector<Listed>& points, Choose choose) {
    std::vector<Choice> choices;
    for (const uint32_t index : kill_points(points, choose)) {
        const std::string text = point_text(points, index);
        choices.push_back({{index, Fate::kKill, 0}, "killed before " + text});
        if (points[index].kind == Kind::kWrite) {
            choices.push_back({{index, Fate::kKillHalfway, 0}, "killed halfway through " + text});
        }
    }
    return choices;
}

std::vector<Choice> choose_failures(const std::vector<Listed>& points, Choose choose) {
    std::vector<Choice> choices;
    std::set<std::pair<std::string, uint8_t>> met;
    for (uint32_t index = 0; index < points.size(); ++index) {
        const Listed& point = points[index];
        if (point.kind == Kind::kStore) {
            continue;
        }
        const std::vector<Failure>& failures = failures_of(call_of(point));
        const bool first = met.emplace(point.place, point.step).second;
        for (size_t i = 0; i < failures.size(); ++i) {
            if (choose == Choose::kAll || first || point.hit % failures.size() == i) {
                choices.push_back({{index, failures[i].fate, failures[i].error},
                                   std::string(failures[i].name) + " at " + point_text(points, index)});
            }
        }
    }
    return choices;
}

}  // namespace apikey::crash
