// Key-value servers on a Unix socket with the keys of a PrivateSet: clients that do no more than a lookup
// needs.
//
// Every answer is compared with what the protocol allows; anything else ends the program with a message, and
// so does a socket that fails. One request or one pipeline is under way at a time. Not thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/private_set.h"

namespace apikey::bench {

/// Requests in one pipeline when keys are looked up.
inline constexpr size_t kPipeline = 16;

struct Answer {
    bool found;
    Row row;
};

/// Blocking bytes to and from a Unix socket.
class ServerConnection {
  public:
    explicit ServerConnection(const std::string& path);
    ~ServerConnection();
    ServerConnection(const ServerConnection&) = delete;
    ServerConnection& operator=(const ServerConnection&) = delete;

    void send(std::string_view bytes);
    /// The next `size` bytes, or the next line without its CR LF; valid until the next call.
    std::string_view read(size_t size);
    std::string_view read_line();
    /// Takes `expected` from what comes next, or ends the program.
    void expect(std::string_view expected);
    [[noreturn]] void wrong_answer(std::string_view got) const;

  private:
    void receive_more();

    std::string path_;
    int fd_;
    std::vector<char> buffer_;
    size_t begin_ = 0;
    size_t end_ = 0;
};

/// RESP, GET by the 54 bytes of the key or the 32 of its digest. Each set has a database of its own.
class RedisClient {
  public:
    RedisClient(const std::string& path, unsigned database);
    void load(uint64_t keys, FoundBy by);
    /// Looks up `count` texts, at most kPipeline: all are sent before the first answer is read.
    void find(const std::string_view* texts, size_t count, Answer* answers);

  private:
    ServerConnection connection_;
    std::string request_;
};

/// The text protocol's `get`; digests go as 64 hexadecimal digits, since its keys are text. There are no
/// databases: smaller sets are parts of the larger ones.
class MemcachedClient {
  public:
    MemcachedClient(const std::string& path, FoundBy by);
    void load(uint64_t keys, FoundBy by);
    void find(const std::string_view* texts, size_t count, Answer* answers);

  private:
    /// Appends what `text` is called there.
    void append_name(std::string_view text);

    ServerConnection connection_;
    FoundBy by_;
    std::string request_;
};

}  // namespace apikey::bench
