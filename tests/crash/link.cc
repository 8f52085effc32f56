#include "tests/crash/link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

namespace apikey::crash {

Link::Link() {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_) != 0) {
        throw std::runtime_error("no socket pair");
    }
}

Link::~Link() {
    shut(&ends_[0]);
    shut(&ends_[1]);
}

void Link::shut(int* end) {
    if (*end >= 0) {
        close(*end);
        *end = -1;
    }
}

void Link::keep_mine() {
    shut(&ends_[1]);
}

void Link::keep_theirs() {
    shut(&ends_[0]);
    std::swap(ends_[0], ends_[1]);
}

bool Link::send(Message::What what, uint8_t edit, const std::string& text) const {
    Message message{what, edit, {}};
    strncpy(message.text, text.c_str(), sizeof message.text - 1);
    return ::send(ends_[0], &message, sizeof message, MSG_NOSIGNAL) == sizeof message;
}

bool Link::receive(Message* message) const {
    return recv(ends_[0], message, sizeof *message, 0) == sizeof *message;
}

void Link::ask(Message::What what, uint8_t edit, const std::string& text) const {
    Message answer;
    if (!send(what, edit, text) || !receive(&answer)) {
        _exit(1);
    }
}

}  // namespace apikey::crash
