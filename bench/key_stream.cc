#include "bench/key_stream.h"

#include <cmath>

namespace apikey::bench {
namespace {

/// In [0, count): the hash scaled instead of divided.
uint64_t scaled(uint64_t hash, uint64_t count) {
    __extension__ typedef unsigned __int128 Uint128;
    return static_cast<uint64_t>(static_cast<Uint128>(hash) * count >> 64);
}

double zeta(uint64_t count, double theta) {
    double sum = 0;
    for (uint64_t rank = count; rank > 0; --rank) {  // smallest first: less is rounded away
        sum += std::pow(static_cast<double>(rank), -theta);
    }
    return sum;
}

}  // namespace

void KeyStream::reserve(size_t keys, size_t bytes) {
    bytes_.reserve(bytes);
    keys_.reserve(keys);
    expected_.reserve(keys);
}

void KeyStream::add(std::string_view key, Expected expected) {
    bytes_.insert(bytes_.end(), key.begin(), key.end());
    keys_.push_back({nullptr, key.size()});
    expected_.push_back(expected);
}

void KeyStream::seal() {
    const char* at = bytes_.data();
    for (apikey_key& key : keys_) {
        key.data = at;
        at += key.len;
    }
}

uint64_t scatter(uint64_t value) {
    value += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

KeyPicker::KeyPicker(uint64_t count, double theta) : count_(count), theta_(theta) {
    if (theta_ == 0) {
        return;
    }
    zeta_ = zeta(count_, theta_);
    alpha_ = 1 / (1 - theta_);
    eta_ = (1 - std::pow(2 / static_cast<double>(count_), 1 - theta_)) / (1 - zeta(2, theta_) / zeta_);
}

uint64_t KeyPicker::pick(std::mt19937_64& random) const {
    if (theta_ == 0) {
        return scaled(random(), count_);
    }
    const double uniform = std::generate_canonical<double, 53>(random);
    const double share = uniform * zeta_;
    uint64_t rank;
    if (share < 1) {
        rank = 0;
    } else if (share < 1 + std::pow(0.5, theta_)) {
        rank = 1;
    } else {
        rank =
            static_cast<uint64_t>(static_cast<double>(count_) * std::pow(eta_ * uniform - eta_ + 1, alpha_));
    }
    return scaled(scatter(rank), count_);
}

}  // namespace apikey::bench
