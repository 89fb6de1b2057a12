// The board's core on POSIX sockets: PORT KEY COUNT INTERVAL_MS. Prints each reading it takes.
#include <arpa/inet.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <thread>

#include "iotflow_device.hpp"

class SocketTransport : public iotflow::Transport {
 public:
  SocketTransport(int port, std::string key) : port_(port), key_(std::move(key)) {}

  iotflow::Reply send(const char* method, const std::string& path, const std::string& body,
                      const std::string& if_none_match) override {
    iotflow::Reply reply;
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    const timeval limit = {5, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      std::ostringstream head;
      head << method << ' ' << path << " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
           << "X-API-Key: " << key_ << "\r\nContent-Type: application/json\r\nContent-Length: "
           << body.size() << "\r\n";
      if (!if_none_match.empty()) head << "If-None-Match: " << if_none_match << "\r\n";
      const std::string text = head.str() + "\r\n" + body;
      if (::send(connection, text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size())) {
        parse(received(connection), reply);
      }
    }
    close(connection);
    return reply;
  }

 private:
  static std::string received(int connection) {
    std::string answer;
    char part[4096];
    for (ssize_t n; (n = recv(connection, part, sizeof part, 0)) > 0;)
      answer.append(part, static_cast<size_t>(n));
    return answer;
  }
  static void parse(const std::string& answer, iotflow::Reply& reply) {
    const size_t end = answer.find("\r\n\r\n");
    if (end == std::string::npos) return;  // cut off: no answer
    std::istringstream head(answer.substr(0, end));
    std::string line;
    std::getline(head, line);
    reply.status = std::atoi(line.c_str() + line.find(' '));
    while (std::getline(head, line)) {
      const size_t colon = line.find(": ");
      if (colon == std::string::npos) continue;
      const std::string name = line.substr(0, colon);
      const std::string value = line.substr(colon + 2, line.find('\r') - colon - 2);
      if (strcasecmp(name.c_str(), "retry-after") == 0) reply.retry_after_s = std::atol(value.c_str());
      if (strcasecmp(name.c_str(), "etag") == 0) reply.etag = value;
    }
    reply.body = answer.substr(end + 4);
  }
  int port_;
  std::string key_;
};

static uint32_t random_bits() { return static_cast<uint32_t>(std::rand()); }
static void on_config(const std::string& answer) { std::cout << "config " << answer << std::endl; }

int main(int, char** arguments) {
  SocketTransport transport(std::atoi(arguments[1]), arguments[2]);
  long left = std::atol(arguments[3]);
  const uint32_t interval_ms = static_cast<uint32_t>(std::atol(arguments[4]));
  iotflow::Pace pace;
  pace.first_wait_ms = 200;
  pace.longest_wait_ms = 1000;
  pace.config_ms = pace.heartbeat_ms = 300;
  iotflow::Device<400> device(transport, random_bits, on_config, pace);
  const auto start = std::chrono::steady_clock::now();
  uint32_t next = 0;
  long taken = 0;
  while (left > 0 || device.outbox().size() > 0) {
    const uint32_t now = static_cast<uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start)
            .count());
    if (left > 0 && now >= next) {
      timeval clock;
      gettimeofday(&clock, nullptr);
      iotflow::Reading reading;
      reading.add("n", static_cast<double>(taken), "count").add("odd", taken % 2 == 1);
      reading.add("nothing", NAN).add("text", "a \"quote\"\\\n").add_integer("big", 1LL << 60);
      const int64_t at = device.measure(int64_t{clock.tv_sec} * 1000 + clock.tv_usec / 1000, reading);
      std::cout << "measured " << at << ' ' << reading.json() << std::endl;
      ++taken;
      --left;
      next = now + interval_ms;
    }
    device.poll(now);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::cout << "stored " << device.stored() << " rejected " << device.rejected() << " dropped "
            << device.outbox().dropped() << std::endl;
}
