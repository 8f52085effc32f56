#include "tests/crash/run.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <stdexcept>

#include "shm/layout.h"
#include "tests/crash/scenario.h"
#include "tests/crash/witness.h"

namespace apikey::crash {
namespace {

using What = Message::What;

/// Ends what hangs, on whatever machine.
constexpr unsigned kPatience_s = 60;

/// A process that was forked with a line to it.
class Process {
  public:
    template <typename Body>
    explicit Process(Body body) {
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(kPatience_s);
            link_.keep_theirs();
            _exit(body(link_));
        }
        link_.keep_mine();
    }
    ~Process() {
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            wait();
        }
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    const Link& link() const { return link_; }
    /// The status as waitpid() tells it.
    int wait() {
        int status = 0;
        while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        return status;
    }

  private:
    Link link_;
    pid_t pid_ = -1;
};

class Run {
  public:
    Run(const Plan& plan, Records* records) : plan_(plan), records_(records) {
        start_clock();
        for (Record* record : {&records->walk, &records->after}) {
            record->points.store(0);
            record->done_at.store(0);
        }
        unanswered_[Edit::kFirst] = all_keys();
        char path[] = "/dev/shm/apikeyd-crash-XXXXXX";
        if (mkdtemp(path) == nullptr) {
            throw std::runtime_error("cannot make a directory under /dev/shm");
        }
        directory_ = path;
        site_.path = directory_ + "/site";  // the same name in each run
        std::filesystem::create_directory(site_.path);
    }
    ~Run() {
        witness_.leave();
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    Outcome all() {
        // Forked before any server is there: a child holds what its parent has mapped.
        const auto after = [this](uint64_t number, const std::function<void()>& arm) {
            return std::make_unique<Process>([this, number, arm](const Link& link) {
                seed_random(number);
                return come_after(site_, link, arm);
            });
        };
        const auto third = plan_.again ? after(3, [] {}) : nullptr;
        const auto second = after(2, [this] {
            if (plan_.again) {
                arm(&records_->after, plan_.after, plan_.record);
            }
        });
        Process first([this](const Link& link) {
            seed_random(1);
            return walk(site_, link,
                        [this] { arm(&records_->walk, plan_.walk, plan_.record && !plan_.again); });
        });
        serve(first, plan_.walk, records_->walk);
        follow(*second, plan_.after, records_->after);
        if (third != nullptr) {
            follow(*third, {}, records_->after);
        }
        note(witness_.compare(keys_));
        note(witness_.compare_denials(kills()));
        outcome_.judged += witness_.judged();
        return outcome_;
    }

  private:
    unsigned kills() const {
        unsigned kills = 0;
        for (const Order& order : {plan_.walk, plan_.after}) {
            kills += order.fate == Fate::kKill || order.fate == Fate::kKillHalfway ? 1 : 0;
        }
        return kills;
    }

    void note(const std::string& problem) {
        if (outcome_.problem.empty()) {
            outcome_.problem = problem;
        }
    }

    std::vector<size_t> all_keys() const {
        std::vector<size_t> all(keys_.keys().size());
        std::iota(all.begin(), all.end(), size_t{0});
        return all;
    }

    std::vector<Expected> expected() const {
        std::vector<Expected> all;
        std::set<size_t> open;
        for (const auto& [edit, touched] : unanswered_) {
            open.insert(touched.begin(), touched.end());
        }
        for (size_t i = 0; i < keys_.keys().size(); ++i) {
            all.push_back(open.contains(i)          ? Expected::kEither
                          : keys_.keys()[i].valid() ? Expected::kValid
                                                    : Expected::kNotValid);
        }
        return all;
    }

    void round(const char* when) {
        const std::string problem = witness_.round(keys_, expected());
        note(problem.empty() ? problem : std::string(when) + ": " + problem);
    }

    void write_source(const std::string& text) const {
        std::ofstream(site_.source() + ".new", std::ios::binary) << text;
        std::filesystem::rename(site_.source() + ".new", site_.source());
    }

    void edit(Edit edit) {
        const std::vector<size_t> touched = keys_.make(edit);
        unanswered_[edit] = edit == Edit::kFirst ? all_keys() : touched;
        edits_ += static_cast<char>(kFirstEdit + static_cast<char>(edit));
        write_source(keys_.text());
    }

    void change_boot() const {
        const int fd = open((site_.instance() + "/control").c_str(), O_WRONLY | O_CLOEXEC);
        const char none[sizeof shm::Control::boot] = {};
        if (pwrite(fd, none, sizeof none, offsetof(shm::Control, boot)) != sizeof none) {
            throw std::runtime_error("cannot write control");
        }
        close(fd);
    }

    /// An operation said why it failed: it has to name what it failed on, and nothing else changes.
    void refused(const std::string& text) {
        outcome_.refused = true;
        ++outcome_.judged;
        const Record& record =
            records_->walk.done_at.load() != 0 && !plan_.again ? records_->walk : records_->after;
        const std::string place = record.place[record.sequence[record.done_at.load() - 1].place].text;
        std::string file = place.substr(place.find(' ') + 1);
        for (const char* suffix : {"-wal", "-shm", "-journal", ".lock", "(random)"}) {
            file = file.substr(0, file.find(suffix));
        }
        if (text.find(file) == std::string::npos) {
            note(place + " failed, and the error does not name the file: " + text);
        }
        round("after a failure");
    }

    void answer(const Message& message) {
        switch (message.what) {
            case What::kEdit:
                edit(static_cast<Edit>(message.edit));
                break;
            case What::kAnswered:
                unanswered_.erase(static_cast<Edit>(message.edit));
                break;
            case What::kAttach:
                witness_.attach();
                witness_.attach_and_stay();
                break;
            case What::kRound:
                round("while the writer goes on");
                break;
            case What::kLetGo:
                witness_.let_go();
                break;
            case What::kBreakSource:
                write_source("version: 1\nkeys: 7\n");
                break;
            case What::kMendSource:
                write_source(keys_.text());
                break;
            case What::kOtherBoot:
                change_boot();
                witness_.may_find_none(true);
                break;
            case What::kRefused:
                refused(message.text);
                break;
            case What::kFailed:
                note(message.text);
                break;
            case What::kLoaded:
                unanswered_.clear();
                witness_.may_find_none(false);
                break;
            case What::kHarvested:
                round("after the harvest");
                look_at_files();
                break;
            case What::kGo:
            case What::kDone:
                throw std::logic_error("no message of a writer");
        }
    }

    /// Answers the writer until it ends; then it ended well, or as it was ordered to.
    void serve(Process& process, const Order& order, const Record& record) {
        Message message;
        while (process.link().receive(&message)) {
            answer(message);
            process.link().send(What::kDone);
        }
        const int status = process.wait();
        const bool kills = order.fate == Fate::kKill || order.fate == Fate::kKillHalfway;
        const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        const bool met = order.fate == Fate::kNone || record.done_at.load() == order.at + 1;
        if (!met || (kills ? !killed : status != 0)) {
            note("the writer ended with status " + std::to_string(status) +
                 (met ? "" : ", without its order"));
        }
    }

    void follow(Process& process, const Order& order, const Record& record) {
        ++outcome_.judged;  // its tables scan, and the announced one is adopted
        write_source(keys_.text());
        round("after the crash");
        witness_.attach();
        round("after the crash, with one more server");
        process.link().send(What::kGo, 0, edits_);
        serve(process, order, record);
    }

    void look_at_files() {
        ++outcome_.judged;
        std::multiset<std::string> kinds;
        for (const auto& entry : std::filesystem::directory_iterator(site_.instance())) {
            const std::string name = entry.path().filename();
            kinds.insert(name.substr(0, name.find('.')));
        }
        if (kinds != std::multiset<std::string>{"cells", "control", "lock", "table"}) {
            std::string names;
            for (const auto& entry : std::filesystem::directory_iterator(site_.instance())) {
                names += " " + entry.path().filename().string();
            }
            note("files that nobody needs are left:" + names);
        }
    }

    const Plan& plan_;
    Records* records_;
    std::string directory_;
    Site site_;
    KeySet keys_;
    Witness witness_{site_};
    std::map<Edit, std::vector<size_t>> unanswered_;
    std::string edits_;  // as a message tells them
    Outcome outcome_;
};

}  // namespace

Outcome run(const Plan& plan, Records* records) {
    return Run(plan, records).all();
}

}  // namespace apikey::crash
