#include "tools/door/http_server.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <csignal>
#include <list>
#include <optional>
#include <string_view>

#include "base/errno_text.h"
#include "tools/door/problem.h"

namespace apikeyd {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using asio::local::stream_protocol;
using boost::system::error_code;
using std::chrono::steady_clock;

using LocalStream = beast::basic_stream<stream_protocol>;
using TlsStream = asio::ssl::stream<beast::tcp_stream>;
// What was read holds keys: in headers, and in what comes before they are parsed.
using Body = http::basic_string_body<char, std::char_traits<char>, WipingAllocator<char>>;
using Parser = http::request_parser<Body, WipingAllocator<char>>;
using Buffer = beast::basic_flat_buffer<WipingAllocator<char>>;

constexpr std::chrono::seconds kTimeout{kTimeout_s};
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::seconds kDrain{2};  // for the rest of a request that was refused unread
constexpr size_t kDrainBytesMax = size_t{4} << 20;

/// A connection, as its listener counts it. Belongs to the loop's thread.
struct Slot {
    std::function<void()> close;
    steady_clock::time_point since = steady_clock::now();
    enum class State : uint8_t {
        kOwes,    ///< its request is not whole
        kWaits,   ///< for its answer
        kIsTold,  ///< its answer is not taken
    };
    State state = State::kOwes;
    bool displaced = false;
};

/// The connections of one listener.
class Slots {
  public:
    /// Ends the one that has owed its request longest, or not taken its answer, where all are taken. False
    /// when each waits for its answer.
    bool make_room() {
        if (std::count_if(slots_.begin(), slots_.end(), [](const Slot& one) { return !one.displaced; }) <
            static_cast<ptrdiff_t>(kConnectionsMax)) {
            return true;
        }
        Slot* slowest = nullptr;
        for (Slot& one : slots_) {
            if (one.state != Slot::State::kWaits && !one.displaced &&
                (slowest == nullptr || one.since < slowest->since)) {
                slowest = &one;
            }
        }
        if (slowest != nullptr) {
            displace(*slowest);
        }
        return slowest != nullptr;
    }
    void end_idle() {
        for (Slot& one : slots_) {
            if (one.state == Slot::State::kOwes) {
                displace(one);
            }
        }
    }

    /// Takes a slot for as long as this lives.
    class Taken {
      public:
        Taken(Slots& slots, std::function<void()> close) : slots_(slots) {
            slots_.slots_.push_back({std::move(close)});
            at_ = std::prev(slots_.slots_.end());
        }
        ~Taken() { slots_.slots_.erase(at_); }
        Taken(const Taken&) = delete;
        Taken& operator=(const Taken&) = delete;
        Slot& operator*() const { return *at_; }

      private:
        Slots& slots_;
        std::list<Slot>::iterator at_;
    };

  private:
    static void displace(Slot& slot) {
        slot.displaced = true;
        slot.close();
    }

    std::list<Slot> slots_;
};

/// The other end of a connection.
struct Origin {
    std::optional<Peer> peer;
    std::optional<apikey_address> address;
};

apikey_address address_of(const asio::ip::address& address) {
    const asio::ip::address_v6 mapped =
        address.is_v4() ? asio::ip::make_address_v6(asio::ip::v4_mapped, address.to_v4()) : address.to_v6();
    const auto bytes = mapped.to_bytes();
    apikey_address read{};
    std::copy(bytes.begin(), bytes.end(), read.bytes);
    return read;
}

HttpRequest request_of(http::request<Body, http::basic_fields<WipingAllocator<char>>>&& read,
                       const Origin& origin) {
    HttpRequest request;
    request.method = std::string(read.method_string());
    request.target.assign(std::string_view(read.target()));
    const auto values = [&](auto name, std::vector<SecretText>& out) {
        const auto range = read.equal_range(name);
        for (auto field = range.first; field != range.second; ++field) {
            out.emplace_back(std::string_view(field->value()));
        }
    };
    values(http::field::authorization, request.authorization);
    values("X-API-Key", request.api_key);
    if (const auto type = read.find(http::field::content_type); type != read.end()) {
        request.content_type = std::string(type->value());
    }
    request.has_length = read.find(http::field::content_length) != read.end() || read.chunked();
    request.body = std::move(read.body());
    request.peer = origin.peer;
    request.address = origin.address;
    return request;
}

/// Whether there is no doubt where the request ends. Beast passes over a Transfer-Encoding that it does not
/// know, and a proxy in front may not: the rest of the body would be read as another's request.
template <typename Fields>
bool has_plain_framing(const http::request<Body, Fields>& read) {
    const auto count = read.count(http::field::transfer_encoding);
    return count == 0 ||
           (count == 1 && read.version() >= 11 && read.count(http::field::content_length) == 0 &&
            beast::iequals(read[http::field::transfer_encoding], "chunked"));
}

/// What a peer is told whose request cannot be read; nullopt when there is nobody left to tell.
std::optional<HttpAnswer> answer_for(const error_code& error) {
    if (error == http::error::body_limit) {
        return problem(413,
                       "The body is too large: want at most " + std::to_string(kBodyBytesMax) + " bytes.");
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
        return problem(
            431, "The header is too large: want at most " + std::to_string(kHeaderBytesMax) + " bytes.");
    }
    if (error == http::error::partial_message) {
        return problem(400, "The request ends before it is whole; nothing was done.");
    }
    if (error == http::error::end_of_stream ||
        error.category() != make_error_code(http::error::body_limit).category()) {
        return std::nullopt;
    }
    return problem(400, "This is not HTTP/1.1.");
}

/// The bytes of an answer, in one piece: whoever sends several copies them.
SecretText wire_of(const HttpAnswer& answer, bool keep_alive, bool with_body) {
    std::array<char, 64> date;
    const time_t now = time(nullptr);
    tm parts{};
    gmtime_r(&now, &parts);
    const size_t date_length = strftime(date.data(), date.size(), "%a, %d %b %Y %T GMT", &parts);

    SecretText wire;
    wire.reserve(1024 + answer.body.size());
    const auto add_header = [&](std::string_view name, std::string_view value) {
        wire.append(name).append(": ").append(value).append("\r\n");
    };
    wire.append("HTTP/1.1 ").append(std::to_string(answer.status)).append(" ");
    wire.append(status_text(answer.status)).append("\r\n");
    add_header("Date", {date.data(), date_length});
    for (const auto& [name, value] : answer.headers) {
        add_header(name, value);
    }
    if (!answer.content_type.empty()) {
        add_header("Content-Type", answer.content_type);
    }
    constexpr unsigned kNoContent = 204;
    if (answer.status != kNoContent) {
        add_header("Content-Length", std::to_string(answer.body.size()));
    }
    add_header("Connection", keep_alive ? "keep-alive" : "close");
    wire.append("\r\n");
    return with_body ? wire.append(answer.body) : wire;
}

/// Certificate and key, as the configuration names them.
Result<std::shared_ptr<asio::ssl::context>> read_certificate(const DoorConfig& config) {
    auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
    SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
    SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_CLEANSE_PLAINTEXT);
    // A key that wants a password is refused: nobody is there to be asked.
    context->set_password_callback(
        [](size_t, asio::ssl::context::password_purpose) { return std::string(); });
    error_code error;
    context->use_certificate_chain_file(config.certificate, error);
    if (error) {
        return fail(config.certificate + ": door.certificate: cannot be used: " + error.message());
    }
    context->use_private_key_file(config.key, asio::ssl::context::pem, error);
    if (error) {
        return fail(config.key + ": door.key: cannot be used with the certificate: " + error.message());
    }
    return context;
}

/// For what is to run as long as the door: without it nobody would be served, and nobody would know.
void ends_the_door(const std::exception_ptr& error) {
    if (error) {
        std::rethrow_exception(error);
    }
}

class Server {
  public:
    explicit Server(HttpServerOptions options) : options_(std::move(options)) {}

    Result<void> open() {
        const int fd = fcntl(options_.unix_listener.get(), F_DUPFD_CLOEXEC, 0);
        error_code error;
        if (fd < 0 || local_.assign(stream_protocol(), fd, error)) {
            return fail("the door's socket: " + (fd < 0 ? errno_text(errno) : error.message()));
        }
        options_.unix_listener.reset();
        return options_.tcp.address.empty() ? Result<void>() : open_tcp();
    }

    void run() {
        asio::co_spawn(io_, accept_local(), ends_the_door);
        std::string where;
        if (tcp_.is_open()) {
            asio::co_spawn(io_, accept_tcp(), ends_the_door);
            const tcp::endpoint endpoint = tcp_.local_endpoint();
            const std::string address = endpoint.address().to_string();
            where = (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
                    std::to_string(endpoint.port());
        }
        asio::co_spawn(io_, keep_house(), ends_the_door);
        obey_signals();
        options_.on_ready(where);
        io_.run();
        handlers_.join();
    }

  private:
    Result<void> open_tcp() {
        if (options_.tcp.tls) {
            auto context = read_certificate(options_.tcp);
            if (!context) {
                return tl::unexpected(context.error());
            }
            tls_ = *std::move(context);
        }
        error_code error;
        const tcp::endpoint endpoint(asio::ip::make_address(options_.tcp.address, error), options_.tcp.port);
        if (error || tcp_.open(endpoint.protocol(), error) ||
            tcp_.set_option(tcp::acceptor::reuse_address(true), error) || tcp_.bind(endpoint, error) ||
            tcp_.listen(asio::socket_base::max_listen_connections, error)) {
            return fail("door.listen: " + options_.tcp.address + ":" + std::to_string(options_.tcp.port) +
                        ": " + error.message());
        }
        return {};
    }

    asio::awaitable<void> accept_local() {
        for (;;) {
            error_code error;
            auto socket = co_await local_.async_accept(asio::redirect_error(asio::use_awaitable, error));
            if (ending_) {
                co_return;
            }
            if (error) {
                co_await pause(error);
            } else if (local_slots_.make_room()) {
                asio::co_spawn(io_, serve_local(std::move(socket)), asio::detached);
            }
        }
    }

    asio::awaitable<void> accept_tcp() {
        for (;;) {
            error_code error;
            auto socket = co_await tcp_.async_accept(asio::redirect_error(asio::use_awaitable, error));
            if (ending_) {
                co_return;
            }
            if (error) {
                co_await pause(error);
            } else if (tcp_slots_.make_room()) {
                asio::co_spawn(io_, serve_tcp(std::move(socket)), asio::detached);
            }
        }
    }

    /// Out of descriptors, most likely: gives the open connections time to end.
    asio::awaitable<void> pause(error_code error) {
        if (error == asio::error::connection_aborted) {
            co_return;
        }
        options_.on_problem("door.paused", error.message());
        asio::steady_timer timer(io_, kAcceptPause);
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }

    asio::awaitable<void> serve_local(stream_protocol::socket socket) try {
        Result<Peer> peer = peer_of(socket.native_handle());
        if (!peer) {
            options_.on_problem("door.no_peer", peer.error().message);
            co_return;
        }
        LocalStream stream(std::move(socket));
        const Slots::Taken slot(local_slots_, [&stream] { stream.close(); });
        const Origin origin{*std::move(peer), std::nullopt};
        const bool drain = co_await serve_requests(stream, *slot, origin);
        stream.socket().shutdown(stream_protocol::socket::shutdown_send);
        if (drain) {
            co_await read_rest(stream);
        }
    } catch (const std::exception&) {
        // The peer went away or was too slow: nothing more to tell it.
    }

    asio::awaitable<void> serve_tcp(tcp::socket socket) try {
        const Origin origin{std::nullopt, address_of(socket.remote_endpoint().address())};
        beast::tcp_stream plain(std::move(socket));
        const std::shared_ptr<asio::ssl::context> tls = tls_;
        if (tls == nullptr) {
            const Slots::Taken slot(tcp_slots_, [&plain] { plain.close(); });
            const bool drain = co_await serve_requests(plain, *slot, origin);
            plain.socket().shutdown(tcp::socket::shutdown_send);
            if (drain) {
                co_await read_rest(plain);
            }
            co_return;
        }
        TlsStream stream(std::move(plain), *tls);
        const Slots::Taken slot(tcp_slots_, [&stream] { beast::get_lowest_layer(stream).close(); });
        beast::get_lowest_layer(stream).expires_after(kTimeout);
        co_await stream.async_handshake(TlsStream::server, asio::use_awaitable);
        const bool drain = co_await serve_requests(stream, *slot, origin);
        if (drain) {
            co_await read_rest(stream);
        }
        beast::get_lowest_layer(stream).expires_after(kDrain);
        co_await stream.async_shutdown(asio::use_awaitable);
    } catch (const std::exception&) {
        // As above.
    }

    /// One after the other, until the peer or an answer ends it. True: the peer may still be sending.
    template <typename Stream>
    asio::awaitable<bool> serve_requests(Stream& stream, Slot& slot, const Origin& origin) {
        Buffer buffer(kHeaderBytesMax + kBodyBytesMax);
        for (;;) {
            slot.state = Slot::State::kOwes;
            slot.since = steady_clock::now();
            beast::get_lowest_layer(stream).expires_after(kTimeout);
            Parser parser;
            parser.header_limit(kHeaderBytesMax);
            parser.body_limit(kBodyBytesMax);
            error_code error;
            co_await http::async_read_header(stream, buffer, parser,
                                             asio::redirect_error(asio::use_awaitable, error));
            const bool is_framed = error || has_plain_framing(parser.get());
            if (!error && is_framed && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
                co_await asio::async_write(stream, asio::buffer(kContinue), asio::use_awaitable);
            }
            if (!error && is_framed) {
                co_await http::async_read(stream, buffer, parser,
                                          asio::redirect_error(asio::use_awaitable, error));
            }
            slot.state = Slot::State::kWaits;
            if (slot.displaced) {
                co_return false;
            }
            std::optional<HttpAnswer> answer;
            bool keep_alive = false;
            bool with_body = true;
            if (error) {
                answer = answer_for(error);
            } else if (!is_framed) {
                answer =
                    problem(400, "Where the request ends cannot be told: want Content-Length, or chunked.");
            } else if (parser.get().version() >= 11 && parser.get().count(http::field::host) != 1) {
                answer = problem(400, "The request has no Host header, or several.");
            } else {
                keep_alive = parser.get().keep_alive();
                with_body = parser.get().method() != http::verb::head;
                const HttpRequest request = request_of(parser.release(), origin);
                answer = co_await asio::co_spawn(handlers_, handle(request), asio::use_awaitable);
            }
            if (!answer) {
                co_return false;
            }
            keep_alive = keep_alive && !ending_;
            const SecretText wire = wire_of(*answer, keep_alive, with_body);
            slot.state = Slot::State::kIsTold;
            slot.since = steady_clock::now();
            beast::get_lowest_layer(stream).expires_after(kTimeout);
            co_await asio::async_write(stream, asio::buffer(wire.data(), wire.size()), asio::use_awaitable);
            if (!keep_alive) {
                co_return error || !is_framed;
            }
            buffer.shrink_to_fit();  // wipes the request; what came behind it stays
        }
    }

    /// Runs on a handler's thread.
    asio::awaitable<HttpAnswer> handle(const HttpRequest& request) { co_return options_.handler(request); }

    /// A peer that is still sending gets to read its answer: a close with bytes unread resets the connection.
    template <typename Stream>
    static asio::awaitable<void> read_rest(Stream& stream) {
        beast::get_lowest_layer(stream).expires_after(kDrain);
        std::array<char, 4096> ignored;
        for (size_t left = kDrainBytesMax; left >= ignored.size(); left -= ignored.size()) {
            co_await stream.async_read_some(asio::buffer(ignored), asio::use_awaitable);
        }
    }

    asio::awaitable<void> keep_house() {
        while (!ending_) {
            options_.every_second();
            house_.expires_after(std::chrono::seconds(1));
            error_code error;
            co_await house_.async_wait(asio::redirect_error(asio::use_awaitable, error));
        }
    }

    void obey_signals() {
        signals_.async_wait([this](error_code error, int number) {
            if (error) {
                return;
            }
            if (number != SIGHUP) {
                end();
                return;
            }
            renew_certificate();
            obey_signals();
        });
    }

    /// For connections from now on; one that cannot be used changes nothing.
    void renew_certificate() {
        if (tls_ == nullptr) {
            return;
        }
        auto context = read_certificate(options_.tcp);
        if (context) {
            tls_ = *std::move(context);
        } else {
            options_.on_problem("door.certificate_kept", context.error().message);
        }
    }

    /// No new connections and no more requests; what was asked is answered.
    void end() {
        ending_ = true;
        error_code ignored;
        local_.close(ignored);
        tcp_.close(ignored);
        house_.cancel();
        local_slots_.end_idle();
        tcp_slots_.end_idle();
    }

    HttpServerOptions options_;
    asio::io_context io_{1};
    asio::thread_pool handlers_{kHandlers};
    asio::signal_set signals_{io_, SIGTERM, SIGINT, SIGHUP};
    asio::steady_timer house_{io_};
    stream_protocol::acceptor local_{io_};
    tcp::acceptor tcp_{io_};
    std::shared_ptr<asio::ssl::context> tls_;  // nullptr: without TLS
    Slots local_slots_;
    Slots tcp_slots_;
    bool ending_ = false;
};

}  // namespace

Result<void> serve_http(HttpServerOptions options) {
    Server server(std::move(options));
    if (Result<void> opened = server.open(); !opened) {
        return opened;
    }
    server.run();
    return {};
}

}  // namespace apikeyd
