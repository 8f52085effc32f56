#include "bench/peer_servers.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace apikey::bench {
namespace {

/// Requests in one pipeline when keys are stored. Their answers fit into a socket's buffer, so that the
/// server never waits for a client that still sends.
constexpr uint64_t kLoadPipeline = 1000;
constexpr size_t kReceiveBytes = size_t{64} << 10;
constexpr std::string_view kLineEnd = "\r\n";

[[noreturn]] void give_up(const std::string& path, const char* what) {
    std::fprintf(stderr, "micro: %s: %s: %s\n", path.c_str(), what, std::strerror(errno));
    std::exit(1);
}

std::string_view bytes_of(const Row& row) {
    return {reinterpret_cast<const char*>(&row), sizeof row};
}

/// Reads a row and the line end behind it.
Row read_row(ServerConnection& connection) {
    Row row;
    std::memcpy(&row, connection.read(sizeof row).data(), sizeof row);
    connection.expect(kLineEnd);
    return row;
}

/// `$<length>` CR LF `<bytes>` CR LF.
void append_bulk(std::string& request, std::string_view bytes) {
    request.append("$").append(std::to_string(bytes.size())).append(kLineEnd).append(bytes).append(kLineEnd);
}

}  // namespace

ServerConnection::ServerConnection(const std::string& path)
    : path_(path), fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), buffer_(kReceiveBytes) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        give_up(path, "connect");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        give_up(path, "connect");
    }
}

ServerConnection::~ServerConnection() {
    close(fd_);
}

void ServerConnection::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            give_up(path_, "send");
        }
        bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(sent, 0)));
    }
}

void ServerConnection::receive_more() {
    // Answers are far smaller than the buffer: there is room again once what was read is moved away.
    std::copy(buffer_.begin() + static_cast<ptrdiff_t>(begin_),
              buffer_.begin() + static_cast<ptrdiff_t>(end_), buffer_.begin());
    end_ -= begin_;
    begin_ = 0;
    ssize_t got;
    do {
        got = recv(fd_, buffer_.data() + end_, buffer_.size() - end_, 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        errno = got == 0 ? ECONNRESET : errno;
        give_up(path_, "receive");
    }
    end_ += static_cast<size_t>(got);
}

std::string_view ServerConnection::read(size_t size) {
    while (end_ - begin_ < size) {
        receive_more();
    }
    const std::string_view bytes(buffer_.data() + begin_, size);
    begin_ += size;
    return bytes;
}

std::string_view ServerConnection::read_line() {
    size_t length;
    while ((length = std::string_view(buffer_.data() + begin_, end_ - begin_).find(kLineEnd)) ==
           std::string_view::npos) {
        receive_more();
    }
    return read(length + kLineEnd.size()).substr(0, length);
}

void ServerConnection::expect(std::string_view expected) {
    const std::string_view got = read(expected.size());
    if (got != expected) {
        wrong_answer(got);
    }
}

void ServerConnection::wrong_answer(std::string_view got) const {
    // Not the bytes themselves: they may be anything.
    std::fprintf(stderr, "micro: %s: an answer that is no right one, %zu bytes beginning with 0x%02x\n",
                 path_.c_str(), got.size(), got.empty() ? 0U : static_cast<unsigned char>(got.front()));
    std::exit(1);
}

RedisClient::RedisClient(const std::string& path, unsigned database) : connection_(path) {
    connection_.send("SELECT " + std::to_string(database) + "\r\n");
    connection_.expect("+OK\r\n");
}

void RedisClient::load(uint64_t keys, FoundBy by) {
    for (uint64_t first = 0; first < keys; first += kLoadPipeline) {
        const uint64_t last = std::min(keys, first + kLoadPipeline);
        request_.clear();
        for (uint64_t i = first; i < last; ++i) {
            request_.append("*3\r\n$3\r\nSET\r\n");
            append_bulk(request_, lookup_text(i, by));
            append_bulk(request_, bytes_of(row_of(i)));
        }
        connection_.send(request_);
        for (uint64_t i = first; i < last; ++i) {
            connection_.expect("+OK\r\n");
        }
    }
}

void RedisClient::find(const std::string_view* texts, size_t count, Answer* answers) {
    request_.clear();
    for (size_t i = 0; i < count; ++i) {
        request_.append("*2\r\n$3\r\nGET\r\n");
        append_bulk(request_, texts[i]);
    }
    connection_.send(request_);
    for (size_t i = 0; i < count; ++i) {
        const std::string_view line = connection_.read_line();
        answers[i].found = line == "$16";
        if (answers[i].found) {
            static_assert(sizeof(Row) == 16);
            answers[i].row = read_row(connection_);
        } else if (line != "$-1") {
            connection_.wrong_answer(line);
        }
    }
}

MemcachedClient::MemcachedClient(const std::string& path, FoundBy by) : connection_(path), by_(by) {}

void MemcachedClient::append_name(std::string_view text) {
    if (by_ == FoundBy::kKey) {
        request_.append(text);
        return;
    }
    constexpr char kDigits[] = "0123456789abcdef";
    for (const char character : text) {
        const auto byte = static_cast<unsigned char>(character);
        request_.push_back(kDigits[byte >> 4]);
        request_.push_back(kDigits[byte & 15]);
    }
}

void MemcachedClient::load(uint64_t keys, FoundBy by) {
    for (uint64_t first = 0; first < keys; first += kLoadPipeline) {
        const uint64_t last = std::min(keys, first + kLoadPipeline);
        request_.clear();
        for (uint64_t i = first; i < last; ++i) {
            request_.append("set ");
            append_name(lookup_text(i, by));
            request_.append(" 0 0 16\r\n").append(bytes_of(row_of(i))).append(kLineEnd);
        }
        connection_.send(request_);
        for (uint64_t i = first; i < last; ++i) {
            connection_.expect("STORED\r\n");
        }
    }
}

void MemcachedClient::find(const std::string_view* texts, size_t count, Answer* answers) {
    request_.clear();
    size_t name_ends[kPipeline];
    for (size_t i = 0; i < count; ++i) {
        request_.append("get ");
        append_name(texts[i]);
        name_ends[i] = request_.size();
        request_.append(kLineEnd);
    }
    connection_.send(request_);
    for (size_t i = 0; i < count; ++i) {
        const std::string_view line = connection_.read_line();
        answers[i].found = line != "END";
        if (!answers[i].found) {
            continue;
        }
        constexpr std::string_view kBefore = "VALUE ";
        constexpr std::string_view kBehind = " 0 16";
        const size_t name_length = by_ == FoundBy::kKey ? texts[i].size() : 2 * texts[i].size();
        const std::string_view name(request_.data() + name_ends[i] - name_length, name_length);
        if (line.size() != kBefore.size() + name_length + kBehind.size() || !line.starts_with(kBefore) ||
            !line.ends_with(kBehind) || line.substr(kBefore.size(), name_length) != name) {
            connection_.wrong_answer(line);
        }
        answers[i].row = read_row(connection_);
        connection_.expect("END\r\n");
    }
}

}  // namespace apikey::bench
