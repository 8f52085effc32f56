// One thread of a server goes over to another generation, a second one looks for what can be unmapped, a
// third one begins to read.
//
// Promise: nothing is read of a mapping after it ended.

#include "client/client.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Reclaim : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {});
        server_.open(Server::kThreads + 1);
        daemon_.switch_to(2, {});
        server_.client()->reclaim_at_ns.store(1);  // as if an earlier mapping had been left
    }

    void thread(unsigned number) override {
        apikey_client* client = server_.client();
        if (number == 0) {
            client::Reading reading(client);
            client::switch_mapping(client, &reading, client::Target::kCurrent);
        } else if (number == 1) {
            client::reclaim_later(client, client::coarse_now_ns());
        } else {
            const client::Reading reading(client);
            const shm::TableView& table = reading.mapping()->generation.table;
            expect(table.base != nullptr, "what is read is mapped");
            static_cast<void>(table.header().scopes_used.load());
        }
    }

    void after() override { server_.close(); }

  private:
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Reclaim>(argc, argv, 3);
}
