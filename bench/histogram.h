// A histogram of durations with a relative error of at most 1/32, of fixed size, for one writer.
//
// Source: the bucket scheme of G. Tene's HdrHistogram: powers of two, each cut into equal parts.

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace apikey::bench {

/// Plain data; all zero is empty.
struct Histogram {
    static constexpr unsigned kPartBits = 5;
    static constexpr uint64_t kParts = uint64_t{1} << kPartBits;
    static constexpr uint64_t kBuckets = (64 - kPartBits + 1) << kPartBits;

    uint64_t count;
    uint64_t max;
    uint64_t buckets[kBuckets];

    static uint64_t bucket_of(uint64_t value) {
        if (value < kParts) {
            return value;
        }
        const auto shift = static_cast<uint64_t>(std::bit_width(value)) - kPartBits - 1;
        return ((shift + 1) << kPartBits) + (value >> shift) - kParts;
    }
    /// The largest value that falls into a bucket.
    static uint64_t last_of(uint64_t bucket) {
        if (bucket < kParts) {
            return bucket;
        }
        const uint64_t shift = (bucket >> kPartBits) - 1;
        return (((bucket & (kParts - 1)) + kParts + 1) << shift) - 1;
    }

    void add(uint64_t value) {
        ++count;
        max = std::max(max, value);
        ++buckets[bucket_of(value)];
    }
    void merge(const Histogram& other) {
        count += other.count;
        max = std::max(max, other.max);
        for (uint64_t i = 0; i < kBuckets; ++i) {
            buckets[i] += other.buckets[i];
        }
    }
    /// No fewer than `share` of the values are at most this; 0 when there are none.
    uint64_t percentile(double share) const {
        const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count));
        uint64_t seen = 0;
        for (uint64_t i = 0; i < kBuckets; ++i) {
            seen += buckets[i];
            if (seen != 0 && seen >= wanted) {
                return std::min(last_of(i), max);
            }
        }
        return max;
    }
};

}  // namespace apikey::bench
