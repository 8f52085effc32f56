// In place of shm/atomics.h, for the models: the same names, and each operation asks the simulation.
//
// Sizes and places are those of the real words, so that the real layout, writer and reader are compiled as
// they are. What the simulation knows of a word it keeps by its address; memory holds what was there before
// the scenario's threads began.

#pragma once

#include <atomic>  // std::memory_order
#include <cstdint>
#include <cstring>

#include <type_traits>
#include <utility>

#include "tests/model/simulation.h"

namespace apikey::shm {

template <typename T>
class Atomic {
    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
    using Where = model::Where;
    using Order = std::memory_order;

  public:
    static constexpr bool is_always_lock_free = true;

    Atomic() = default;
    constexpr Atomic(T value) : before_(value) {}
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    T load(Order order = Order::seq_cst, Where where = Where::current()) const {
        return model::in_memory() ? before_ : from_bits(model::load(&before_, bits(before_), order, where));
    }
    void store(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        if (model::in_memory()) {
            before_ = value;
        } else {
            model::store(&before_, bits(before_), bits(value), order, where);
        }
    }
    T exchange(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        if (model::in_memory()) {
            return std::exchange(before_, value);
        }
        return from_bits(model::exchange(&before_, bits(before_), bits(value), order, where));
    }
    T fetch_add(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        if (model::in_memory()) {
            return std::exchange(before_, static_cast<T>(before_ + value));
        }
        return from_bits(model::fetch_add(&before_, bits(before_), bits(value), order, where));
    }
    T fetch_or(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        T seen = load(Order::relaxed, where);
        while (!compare_exchange_strong(seen, static_cast<T>(seen | value), order, Order::relaxed, where)) {
        }
        return seen;
    }
    bool compare_exchange_strong(T& expected, T desired, Order order, Order failure,
                                 Where where = Where::current()) {
        if (model::in_memory()) {
            const bool done = before_ == expected;
            (done ? before_ : expected) = done ? desired : before_;
            return done;
        }
        uint64_t seen = bits(expected);
        const bool done =
            model::compare_exchange(&before_, bits(before_), &seen, bits(desired), order, failure, where);
        expected = from_bits(seen);
        return done;
    }
    bool compare_exchange_strong(T& expected, T desired, Order order = Order::seq_cst,
                                 Where where = Where::current()) {
        return compare_exchange_strong(expected, desired, order,
                                       order == Order::release   ? Order::relaxed
                                       : order == Order::acq_rel ? Order::acquire
                                                                 : order,
                                       where);
    }
    /// Fails for no reason as little as x86 does; a spurious failure is one more turn of the same loop.
    bool compare_exchange_weak(T& expected, T desired, Order order, Order failure,
                               Where where = Where::current()) {
        return compare_exchange_strong(expected, desired, order, failure, where);
    }

  private:
    static uint64_t bits(T value) {
        if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
            return static_cast<uint64_t>(static_cast<int64_t>(value));  // -1 counts down
        }
        uint64_t word = 0;
        std::memcpy(&word, &value, sizeof value);
        return word;
    }
    static T from_bits(uint64_t word) {
        T value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    }

    T before_;
};

template <typename T>
class Plain {
    using Where = model::Where;

  public:
    Plain() = default;
    operator T() const {
        model::plain_load(this, Where::current());
        return value_;
    }
    Plain& operator=(T value) {
        model::plain_store(this, Where::current());
        value_ = value;
        return *this;
    }

  private:
    T value_;
};

inline void write_plain(void* to, const void* from, size_t bytes,
                        model::Where where = model::Where::current()) {
    if (bytes != 0) {
        model::plain_store(to, where);
        std::memcpy(to, from, bytes);
    }
}
inline void read_plain(void* to, const void* from, size_t bytes,
                       model::Where where = model::Where::current()) {
    model::plain_load(from, where);
    std::memcpy(to, from, bytes);
}

}  // namespace apikey::shm
