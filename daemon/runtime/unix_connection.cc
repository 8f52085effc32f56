#include "runtime/unix_connection.h"

#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <chrono>
#include <utility>

namespace apikeyd {
namespace {

/// Requests of one connection served in one turn of the loop; then the others get theirs.
constexpr int kLinesPerTurn = 16;

}  // namespace

bool Responder::send(std::string_view line) const {
    const auto connection = connection_.lock();
    return connection != nullptr && connection->answer(request_, line);
}

UnixConnection::UnixConnection(UnixServer& server, OwnedFd fd, Peer peer)
    : server_(server), fd_(std::move(fd)), peer_(std::move(peer)) {}

Result<void> UnixConnection::start() {
    // The callbacks hold no reference: close() takes them out of the loop before the object goes.
    auto watch = server_.loop_.watch(fd_.get(), Interest::readable, [this](Ready ready) { on_ready(ready); });
    if (!watch) {
        return tl::unexpected<Error>(watch.error());
    }
    watch_ = *watch;
    enter(Phase::receiving);
    return {};
}

void UnixConnection::close() {
    if (!is_open()) {
        return;
    }
    server_.loop_.unwatch(watch_);
    server_.loop_.cancel(deadline_);
    server_.loop_.cancel(resume_);
    fd_.reset();
    server_.forget(this);
}

void UnixConnection::displace() {
    const auto self = shared_from_this();
    queue_fault(ServerFault::too_many_connections);
    close();
}

bool UnixConnection::answer(std::uint64_t request, std::string_view line) {
    assert(line.find('\n') == std::string_view::npos);
    if (!is_open() || phase_ != Phase::handling || request != request_) {
        return false;
    }
    to_send_.append(line);
    to_send_ += '\n';
    enter(Phase::sending);
    flush();
    const bool peer_is_there = is_open();
    advance();
    return peer_is_there;
}

void UnixConnection::on_ready(Ready ready) {
    const auto self = shared_from_this();
    if (ready.writable) {
        flush();
    }
    if (is_open() && ready.readable) {
        receive();
    }
    advance();
}

void UnixConnection::on_deadline() {
    const auto self = shared_from_this();
    const bool half_request = taken_bytes_ < received_.size();
    if (phase_ == Phase::handling) {
        queue_fault(ServerFault::not_answered);
    } else if (phase_ == Phase::receiving && half_request) {
        queue_fault(ServerFault::request_too_slow);
    } else {
        close();  // idle between requests, or not taking its answer
    }
    advance();
}

void UnixConnection::receive() {
    auto& buffer = server_.read_buffer_;
    const ssize_t bytes = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (bytes > 0) {
        received_.append(buffer.data(), static_cast<std::size_t>(bytes));
    } else if (bytes == 0) {
        input_ended_ = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        close();
    }
}

/// Does what can be done now: takes lines to the handler while it answers at once, then settles what to wait
/// for.
void UnixConnection::advance() {
    if (advancing_) {
        return;
    }
    advancing_ = true;
    std::string line;
    int lines = 0;
    while (is_open() && phase_ == Phase::receiving && !resume_pending_) {
        if (lines == kLinesPerTurn) {
            resume_pending_ = true;
            resume_ = server_.loop_.after(std::chrono::milliseconds{0}, [this] {
                const auto self = shared_from_this();
                resume_pending_ = false;
                advance();
            });
            break;
        }
        const NextLine next = take_line(line);
        if (next == NextLine::too_long) {
            queue_fault(ServerFault::request_too_long);
        } else if (next == NextLine::found) {
            give_to_handler(std::move(line));
            ++lines;
        } else if (input_ended_) {
            end_of_input();
        } else {
            break;
        }
    }
    advancing_ = false;
    if (is_open()) {
        update_interest();
    }
}

UnixConnection::NextLine UnixConnection::take_line(std::string& line) {
    const std::size_t end = received_.find('\n', searched_bytes_);
    const std::size_t line_end = end == std::string::npos ? received_.size() : end;
    if (line_end - taken_bytes_ > server_.options_.request_bytes_max) {
        return NextLine::too_long;
    }
    if (end != std::string::npos) {
        line.assign(received_, taken_bytes_, end - taken_bytes_);
        taken_bytes_ = end + 1;
        searched_bytes_ = taken_bytes_;
        return NextLine::found;
    }
    received_.erase(0, taken_bytes_);
    if (received_.empty()) {
        received_.shrink_to_fit();  // an idle connection does not sit on the memory of a long request
    }
    taken_bytes_ = 0;
    searched_bytes_ = received_.size();
    return NextLine::none;
}

void UnixConnection::end_of_input() {
    if (taken_bytes_ < received_.size()) {
        queue_fault(ServerFault::request_incomplete);  // half a request is never carried out
    } else {
        close();
    }
}

void UnixConnection::give_to_handler(std::string line) {
    enter(Phase::handling);
    ++request_;
    server_.handler_(peer_, std::move(line), Responder(weak_from_this(), request_));
}

void UnixConnection::queue_fault(ServerFault fault) {
    to_send_ += server_.options_.fault_line(fault);
    to_send_ += '\n';
    close_when_sent_ = true;
    enter(Phase::sending);
    flush();
}

void UnixConnection::flush() {
    while (sent_bytes_ < to_send_.size()) {
        const ssize_t bytes =
            ::send(fd_.get(), to_send_.data() + sent_bytes_, to_send_.size() - sent_bytes_, MSG_NOSIGNAL);
        if (bytes < 0 && errno == EINTR) {
            continue;
        }
        if (bytes < 0 && errno == EAGAIN) {
            return;  // the loop tells when there is room
        }
        if (bytes < 0) {
            close();
            return;
        }
        sent_bytes_ += static_cast<std::size_t>(bytes);
        enter(Phase::sending);  // progress: the time limit starts again
    }
    to_send_.clear();
    to_send_.shrink_to_fit();
    sent_bytes_ = 0;
    if (close_when_sent_) {
        close();
    } else {
        enter(Phase::receiving);
    }
}

void UnixConnection::enter(Phase phase) {
    phase_ = phase;
    since_ = std::chrono::steady_clock::now();
    server_.loop_.cancel(deadline_);
    const auto& options = server_.options_;
    const std::int64_t limit_ms = phase == Phase::handling ? options.answer_ms : options.idle_ms;
    deadline_ = server_.loop_.after(std::chrono::milliseconds(limit_ms), [this] { on_deadline(); });
}

void UnixConnection::update_interest() {
    Interest interest = Interest::none;
    if (phase_ == Phase::sending) {
        interest = Interest::writable;
    } else if (phase_ == Phase::receiving && !resume_pending_ && !input_ended_) {
        interest = Interest::readable;
    }
    if (auto changed = server_.loop_.change(watch_, interest); !changed) {
        close();
    }
}

}  // namespace apikeyd
