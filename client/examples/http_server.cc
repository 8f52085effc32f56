// An HTTP server that asks for an API key: how to use libapikey in a server of your own.
//
// A valid key is answered with who it belongs to. Whoever has none that is accepted learns only that:
// unknown, revoked, disabled, expired and mistyped keys get the same 401, byte for byte (the true reason is
// counted, see `apikeyctl usage`). Requests run as coroutines on one thread; a second thread does the
// library's housekeeping.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <apikey/apikey.hpp>
#include <array>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <iostream>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace json = boost::json;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

constexpr std::chrono::seconds kIdle{10};  // for a whole request; then the connection is closed
constexpr std::chrono::seconds kRefreshInterval{1};
constexpr uint64_t kBodyBytesMax = uint64_t{64} * 1024;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::seconds kDrain{2};  // for the rest of a request that was refused unread
constexpr size_t kDrainBytesMax = size_t{4} << 20;

/// Points into the request.
struct Credential {
    std::optional<std::string_view> key;
    bool conflicting = false;  ///< two different ones were sent
};

/// `Authorization: Bearer KEY`, then `X-API-Key: KEY`. Never from the URL: URLs end up in logs.
Credential credential_of(const Request& request) {
    Credential credential;
    const auto add = [&credential](std::string_view key) {
        credential.conflicting = credential.conflicting || (credential.key && *credential.key != key);
        credential.key = credential.key.value_or(key);
    };
    constexpr std::string_view kScheme = "Bearer ";
    const auto bearers = request.equal_range(http::field::authorization);
    for (auto field = bearers.first; field != bearers.second; ++field) {
        std::string_view value = field->value();
        if (beast::iequals(value.substr(0, kScheme.size()), kScheme)) {
            value.remove_prefix(std::min(value.find_first_not_of(' ', kScheme.size()), value.size()));
            add(value);
        }
    }
    const auto headers = request.equal_range("X-API-Key");
    for (auto field = headers.first; field != headers.second; ++field) {
        add(field->value());
    }
    return credential;
}

Response answer(http::status status, const char* type, const json::object& body) {
    Response response{status, 11};
    response.set(http::field::content_type, type);
    response.set(http::field::cache_control, "no-store");
    response.body() = json::serialize(body) + "\n";
    return response;
}

/// RFC 9457. `challenge` is the WWW-Authenticate header of RFC 6750, or nullptr.
Response problem(http::status status, std::string_view detail, const char* challenge = nullptr) {
    Response response = answer(status, "application/problem+json",
                               {{"type", "about:blank"},
                                {"title", std::string_view(http::obsolete_reason(status))},
                                {"status", static_cast<unsigned>(status)},
                                {"detail", detail}});
    if (challenge != nullptr)
        response.set(http::field::www_authenticate, challenge);
    return response;
}

Response answer_for(const apikey::Client& client, const Request& request) {
    const Credential credential = credential_of(request);
    if (credential.conflicting) {
        return problem(http::status::bad_request, "Two different API keys were sent.",
                       R"(Bearer realm="example", error="invalid_request")");
    }
    if (!credential.key) {
        return problem(http::status::unauthorized, "No API key was sent.", R"(Bearer realm="example")");
    }
    const apikey_verdict verdict = client.validate(*credential.key);
    switch (verdict.code) {
        case APIKEY_VALID:
            break;
        case APIKEY_UNAVAILABLE: {
            Response response = problem(http::status::service_unavailable, "Keys cannot be checked now.");
            response.set(http::field::retry_after, "1");
            return response;
        }
        case APIKEY_IP_NOT_ALLOWED:
        case APIKEY_INSUFFICIENT_PERMISSIONS:
            return problem(http::status::forbidden, "The API key does not permit this.",
                           R"(Bearer realm="example", error="insufficient_scope")");
        case APIKEY_RATE_LIMITED:
        case APIKEY_USAGE_EXCEEDED:
            return problem(http::status::too_many_requests, "A limit of the API key is reached.");
        default:  // one answer for all of them
            return problem(http::status::unauthorized, "The API key is not accepted.",
                           R"(Bearer realm="example", error="invalid_token")");
    }
    const apikey::Description who = client.describe(verdict).value_or(apikey::Description{});
    return answer(http::status::ok, "application/json",
                  {{"key_id", verdict.key_id},
                   {"owner", who.owner},
                   {"environment", who.environment},
                   {"name", who.name}});
}

/// What a peer is told whose request cannot be read; nullopt when there is nobody left to tell.
std::optional<Response> answer_for(const beast::error_code& error) {
    if (error == http::error::body_limit) {
        return problem(http::status::payload_too_large, "The body is too large.");
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
        return problem(http::status::request_header_fields_too_large, "The header is too large.");
    }
    const bool gone = error == http::error::end_of_stream || error == http::error::partial_message;
    if (gone || error.category() != make_error_code(http::error::body_limit).category()) {
        return std::nullopt;
    }
    return problem(http::status::bad_request, "This is not HTTP/1.1.");
}

asio::awaitable<void> serve_connection(asio::ip::tcp::socket socket, const apikey::Client& client) try {
    beast::tcp_stream stream{std::move(socket)};
    beast::flat_buffer buffer;
    beast::error_code unreadable;
    for (bool keep_alive = true; keep_alive;) {
        stream.expires_after(kIdle);
        http::request_parser<http::string_body> parser;
        parser.body_limit(kBodyBytesMax);
        co_await http::async_read_header(stream, buffer, parser,
                                         asio::redirect_error(asio::use_awaitable, unreadable));
        if (!unreadable && beast::iequals(parser.get()[http::field::expect], "100-continue")) {
            co_await asio::async_write(stream, asio::buffer(kContinue), asio::use_awaitable);
        }
        if (!unreadable) {
            co_await http::async_read(stream, buffer, parser,
                                      asio::redirect_error(asio::use_awaitable, unreadable));
        }
        std::optional<Response> response =
            unreadable ? answer_for(unreadable) : answer_for(client, parser.get());
        if (!response) {
            co_return;
        }
        keep_alive = !unreadable && parser.get().keep_alive();
        response->keep_alive(keep_alive);
        response->prepare_payload();
        if (parser.get().method() == http::verb::head) {
            response->body().clear();  // its length stays announced
        }
        co_await http::async_write(stream, *response, asio::use_awaitable);
    }
    // A peer that is still sending gets to read its answer: a close with bytes unread resets the connection.
    stream.socket().shutdown(asio::ip::tcp::socket::shutdown_send);
    stream.expires_after(kDrain);
    std::array<char, 4096> ignored;
    for (size_t left = unreadable ? kDrainBytesMax : 0; left >= ignored.size(); left -= ignored.size()) {
        co_await stream.async_read_some(asio::buffer(ignored), asio::use_awaitable);
    }
} catch (const boost::system::system_error&) {
    // The peer went away or was too slow: nothing more to tell it.
}

asio::awaitable<void> accept_connections(asio::ip::tcp::acceptor& acceptor, const apikey::Client& client) {
    for (;;) {
        boost::system::error_code error;
        auto socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
        if (!error) {
            asio::co_spawn(acceptor.get_executor(), serve_connection(std::move(socket), client),
                           asio::detached);
        } else {  // out of descriptors, most likely: give the open connections time to end
            asio::steady_timer pause{acceptor.get_executor(), std::chrono::milliseconds(100)};
            co_await pause.async_wait(asio::use_awaitable);
        }
    }
}

/// Maps what the daemon publishes before a request has to.
void keep_house(const std::stop_token& stop, const apikey::Client& client) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock{mutex};
    while (!stop.stop_requested()) {
        wake.wait_for(lock, stop, kRefreshInterval, [] { return false; });
        client.refresh();
    }
}

}  // namespace

int main(int argc, char** argv) try {
    CLI::App app{"Answers HTTP requests on the loopback address to whoever sends a valid API key."};
    std::string directory;
    std::string instance = "default";
    uint16_t port = 8080;
    app.add_option("--directory", directory, "where apikeyd keeps its instances (default: its default)");
    app.add_option("--instance", instance, "the daemon's instance")->capture_default_str();
    app.add_option("--port", port, "0: any that is free")->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    apikey_options options{};
    options.size = sizeof options;
    options.directory = directory.empty() ? nullptr : directory.c_str();
    options.instance = instance.c_str();
    const apikey::Client client{options};  // there need not be a daemon yet

    asio::io_context io{1};
    asio::signal_set signals{io, SIGTERM, SIGINT};
    signals.async_wait([&io](auto, auto) { io.stop(); });
    asio::ip::tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), port}};
    asio::co_spawn(io, accept_connections(acceptor, client), asio::detached);
    // Ends before `client` does.
    const std::jthread housekeeping{[&client](const std::stop_token& stop) { keep_house(stop, client); }};
    std::cout << "listening on " << acceptor.local_endpoint() << std::endl;
    io.run();
} catch (const std::exception& error) {
    std::cerr << "apikey-example-server: " << error.what() << "\n";
    return 1;
}
