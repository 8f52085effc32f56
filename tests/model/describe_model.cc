// A key's name and environment are changed while a server validates, describes and explains it, and asks for
// the status.
//
// Promises: a description is the old one or the new one, whole; so is what an explanation says; a server that
// sees a new position sees what was changed before it.

#include "client/explain.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Describe : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {key_.row});
        server_.open(Server::kThreads);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.change(renamed());
            daemon_.change(moved());
            daemon_.change(key_.as(KeyState::kDisabled));
            InstanceMemory::get().control.applied(kFingerprint, 0);
            return;
        }
        apikey_verdict verdict;
        const apikey_code code = server_.validate(0, key_, &verdict);
        expect(code == APIKEY_VALID || code == APIKEY_DISABLED, "the key is known");
        expect_description(verdict);
        expect_explanation();
        apikey_status_info status{};
        status.size = sizeof status;
        apikey_status(server_.client(), &status);
        if (status.position != 0) {
            expect(status.fingerprint == kFingerprint, "the fingerprint is as new as the position");
            expect(server_.validate(0, key_) == APIKEY_DISABLED, "and so is every slot");
        }
    }

    void after() override { server_.close(); }

  private:
    KeyRow renamed() const {
        KeyRow row = key_.row;
        row.name = "new name";
        return row;
    }
    KeyRow moved() const {
        KeyRow row = renamed();
        row.environment = "live";
        return row;
    }
    void expect_description(const apikey_verdict& verdict) {
        char buffer[APIKEY_DESCRIPTION_MAX];
        apikey_description description{};
        description.size = sizeof description;
        expect(apikey_describe(server_.client(), &verdict, buffer, sizeof buffer, &description) == 1,
               "a key that was found can be described");
        const std::string name = description.name;
        const std::string environment = description.environment;
        expect(key_.row.id == description.key_id, "the id is the key's");
        expect(name.empty() || name == renamed().name, "the name is the old one or the new one");
        expect(environment.empty() || environment == moved().environment, "and so is the environment");
    }
    void expect_explanation() {
        const client::Explanation found = client::explain(server_.client(), key_.row.id.c_str(), {});
        const std::string environment = found.key_environment;
        expect(found.known == client::Finding::kPassed, "the key is known by its id");
        expect(environment.empty() || environment == moved().environment, "its environment is one of both");
    }

    static constexpr uint64_t kFingerprint = 7;
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    const ModelKey key_{'a'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Describe>(argc, argv, 2);
}
