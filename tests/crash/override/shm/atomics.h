// In place of shm/atomics.h, for the crash points: the same names and the real operations, and before each
// that changes memory the process may be killed.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

#include <type_traits>

#include "tests/crash/points.h"

namespace apikey::shm {

template <typename T>
class Atomic {
    using Where = test::CallPlace;
    using Order = std::memory_order;

  public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

    Atomic() = default;
    constexpr Atomic(T value) : word_(value) {}

    T load(Order order = Order::seq_cst) const { return word_.load(order); }
    void store(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        crash::store_point(where);
        word_.store(value, order);
    }
    T exchange(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        crash::store_point(where);
        return word_.exchange(value, order);
    }
    T fetch_add(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        crash::store_point(where);
        return word_.fetch_add(value, order);
    }
    T fetch_or(T value, Order order = Order::seq_cst, Where where = Where::current()) {
        crash::store_point(where);
        return word_.fetch_or(value, order);
    }
    bool compare_exchange_strong(T& expected, T desired, Order order = Order::seq_cst,
                                 Where where = Where::current()) {
        crash::store_point(where);
        return word_.compare_exchange_strong(expected, desired, order);
    }
    bool compare_exchange_strong(T& expected, T desired, Order order, Order failure,
                                 Where where = Where::current()) {
        crash::store_point(where);
        return word_.compare_exchange_strong(expected, desired, order, failure);
    }
    bool compare_exchange_weak(T& expected, T desired, Order order, Order failure,
                               Where where = Where::current()) {
        return compare_exchange_strong(expected, desired, order, failure, where);
    }

  private:
    std::atomic<T> word_;
};

template <typename T>
class Plain {
  public:
    /// A value that knows where it is assigned.
    struct Given {
        Given(T given, test::CallPlace at = test::CallPlace::current()) : value(given), where(at) {}
        T value;
        test::CallPlace where;
    };

    Plain() = default;
    operator T() const { return value_; }
    Plain& operator=(const Given& given) {
        crash::store_point(given.where);
        value_ = given.value;
        return *this;
    }

  private:
    T value_;
};

/// Also killed when half of it is written.
inline void write_plain(void* to, const void* from, size_t bytes,
                        test::CallPlace where = test::CallPlace::current()) {
    if (bytes == 0) {
        return;
    }
    const size_t half = bytes / 2;
    crash::store_point(where);
    std::memcpy(to, from, half);
    crash::store_point(where, crash::Part::kHalf);
    std::memcpy(static_cast<char*>(to) + half, static_cast<const char*>(from) + half, bytes - half);
}
inline void read_plain(void* to, const void* from, size_t bytes) {
    std::memcpy(to, from, bytes);
}

}  // namespace apikey::shm
