// Two servers that are denied, one of them a round of the ring ahead of the other, and the daemon that reads.
//
// Promises: what is read as an entry is one writer's from its first word to its last; nothing is read twice;
// no more is written than there is room for.

#include <array>

#include "shm/denials.h"
#include "tests/model/simulation.h"

namespace apikey::model {
namespace {

constexpr uint32_t kBits = 1;
constexpr unsigned kReader = 2;
constexpr unsigned kDenials = 2;  // of each writer
constexpr unsigned kRoom = 3;
constexpr uint8_t kCode = 2;

shm::Denial denial_of(unsigned writer, unsigned number) {
    shm::Denial denial;
    const uint32_t byte = 1 + writer * kDenials + number;
    std::memset(&denial, static_cast<int>(byte), sizeof denial);
    return denial;
}

class Denials : public Scenario {
  public:
    void before() override {
        view_.base = reinterpret_cast<uint8_t*>(&ring_);
        view_.ring = &ring_;
        view_.denials = entries_.data();
        view_.denial_bits = kBits;
        ring_.room[kCode].store(kRoom);
    }

    void thread(unsigned number) override {
        if (number == kReader) {
            shm::DenialReader reader(view_, 0);
            for (unsigned i = 0; i < 2; ++i) {
                reader.drain([this](const shm::Denial& denial) { note(denial); });
            }
            return;
        }
        for (unsigned i = 0; i < kDenials; ++i) {
            if (shm::take_denial_room(view_, kCode)) {
                shm::write_denial(view_, denial_of(number, i));
            }
        }
    }

    void after() override { expect(ring_.begun.load() == kRoom, "there are as many as there is room for"); }

  private:
    void note(const shm::Denial& denial) {
        const uint8_t byte = denial.code;
        expect(byte >= 1 && byte <= 2 * kDenials, "it is some writer's");
        const shm::Denial whole = denial_of(0, byte - 1u);
        expect(std::memcmp(&denial, &whole, sizeof whole) == 0, "an entry is whole");
        expect(!seen_[byte], "nothing is read twice");
        seen_[byte] = true;
    }

    shm::DenialRing ring_{};
    std::array<shm::DenialEntry, size_t{1} << kBits> entries_{};
    shm::CellsView view_;
    std::array<bool, 2 * kDenials + 1> seen_{};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Denials>(argc, argv, 3);
}
