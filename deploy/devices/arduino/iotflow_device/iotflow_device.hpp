// A device of IoTFlow in C++11: measures now, sends when it can, loses nothing it can hold.
//
// No Arduino in here: the network is a Transport, the clock and randomness are passed in, so this
// runs on a board and on a desk alike. Not for several threads.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace iotflow {

struct Reply {
  int status = 0;  // 0: there was no answer
  long retry_after_s = -1;
  std::string etag;
  std::string body;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // One request, bounded in time. `if_none_match` may be empty.
  virtual Reply send(const char* method, const std::string& path, const std::string& body,
                     const std::string& if_none_match) = 0;
};

// The measurements of one moment as JSON.
class Reading {
 public:
  Reading& add(const std::string& name, double value, const char* unit = nullptr) {
    // JSON has no NaN and no infinity; a sensor that says so has measured nothing.
    if (!std::isfinite(value)) return *this;
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", value);
    return put(name, text, unit);
  }
  Reading& add_integer(const std::string& name, long long value, const char* unit = nullptr) {
    return put(name, std::to_string(value), unit);
  }
  Reading& add(const std::string& name, bool value) { return put(name, value ? "true" : "false"); }
  Reading& add(const std::string& name, const char* value) { return put(name, quoted(value)); }

  bool empty() const { return fields_.empty(); }
  std::string json() const { return "{" + fields_ + "}"; }

  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (unsigned char c : text) {
      if (c == '"' || c == '\\') {
        out += '\\';
        out += static_cast<char>(c);
      } else if (c < 0x20) {
        char escape[8];
        std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
        out += escape;
      } else {
        out += static_cast<char>(c);
      }
    }
    return out + '"';
  }

 private:
  Reading& put(const std::string& name, const std::string& value, const char* unit = nullptr) {
    if (!fields_.empty()) fields_ += ',';
    fields_ += quoted(name) + ':';
    fields_ += unit ? "{\"value\":" + value + ",\"unit\":" + quoted(unit) + "}" : value;
    return *this;
  }
  std::string fields_;
};

// Records waiting to be sent, oldest first. Full: the oldest goes, and is counted.
template <size_t Capacity>
class Outbox {
 public:
  void put(const std::string& record) {
    if (size_ == Capacity) {
      discard(1);
      ++dropped_;
    }
    records_[(first_ + size_++) % Capacity] = record;
  }
  const std::string& at(size_t index) const { return records_[(first_ + index) % Capacity]; }
  void discard(size_t count) {
    for (; count > 0 && size_ > 0; --count, --size_) {
      records_[first_] = std::string();  // gives its memory back
      first_ = (first_ + 1) % Capacity;
    }
  }
  size_t size() const { return size_; }
  unsigned long dropped() const { return dropped_; }

 private:
  std::string records_[Capacity];
  size_t first_ = 0;
  size_t size_ = 0;
  unsigned long dropped_ = 0;
};

struct Pace {
  uint32_t heartbeat_ms = 60000;
  uint32_t config_ms = 60000;
  uint32_t first_wait_ms = 1000;
  uint32_t longest_wait_ms = 300000;
  size_t batch = 25;
};

template <size_t Capacity>
class Device {
 public:
  using Random = uint32_t (*)();
  // Gets the whole answer {"version": ..., "config": {...}} whenever it changed.
  using OnConfig = void (*)(const std::string& answer);

  Device(Transport& transport, Random random, OnConfig on_config = nullptr, Pace pace = Pace())
      : transport_(transport), random_(random), on_config_(on_config), pace_(pace) {}

  // Keep a reading until the service has it; its moment. `epoch_ms`: UTC, from a clock that is set.
  int64_t measure(int64_t epoch_ms, const Reading& reading) {
    if (reading.empty()) return 0;
    // Two readings in one millisecond would be one point to the service.
    last_ms_ = epoch_ms > last_ms_ ? epoch_ms : last_ms_ + 1;
    outbox_.put("{\"timestamp\":" + std::to_string(static_cast<long long>(last_ms_)) +
                ",\"data\":" + reading.json() + "}");
    return last_ms_;
  }

  // Do what is due, at most one request. `uptime_ms` is millis(); it may wrap.
  void poll(uint32_t uptime_ms) {
    if (waiting_ && uptime_ms - wait_from_ < wait_ms_) return;
    waiting_ = false;
    // Configuration first, or a device that always has more to send never asks.
    if (due(config_at_, config_begun_, pace_.config_ms, uptime_ms)) {
      fetch_config(uptime_ms);
    } else if (outbox_.size() > 0) {
      send_batch(uptime_ms);
    } else if (due(heartbeat_at_, heartbeat_begun_, pace_.heartbeat_ms, uptime_ms)) {
      request("POST", "/api/v1/devices/heartbeat", "", "", uptime_ms);
    }
  }

  const Outbox<Capacity>& outbox() const { return outbox_; }
  unsigned long stored() const { return stored_; }      // records
  unsigned long rejected() const { return rejected_; }  // records that the service refused whole

 private:
  static bool due(uint32_t& last, bool& begun, uint32_t every_ms, uint32_t now) {
    if (begun && now - last < every_ms) return false;
    begun = true;
    last = now;
    return true;
  }

  void send_batch(uint32_t now) {
    const size_t count = outbox_.size() < pace_.batch ? outbox_.size() : pace_.batch;
    std::string body = "{\"records\":[";
    for (size_t i = 0; i < count; ++i) body += (i ? "," : "") + outbox_.at(i);
    body += "]}";
    const Reply reply = request("POST", "/api/v1/telemetry/batch", body, "", now);
    if (reply.status == 201 || reply.status == 207) {
      stored_ += count;
      outbox_.discard(count);
    } else if (reply.status == 400 || reply.status == 413 || reply.status == 415 ||
               reply.status == 422) {
      // The service will never take these. Waiting behind them would lose what is good.
      rejected_ += count;
      outbox_.discard(count);
    }
  }

  void fetch_config(uint32_t now) {
    const Reply reply = request("GET", "/api/v1/devices/config", "", etag_, now);
    if (reply.status != 200) return;
    etag_ = reply.etag;
    if (on_config_) on_config_(reply.body);
  }

  Reply request(const char* method, const std::string& path, const std::string& body,
                const std::string& if_none_match, uint32_t now) {
    const Reply reply = transport_.send(method, path, body, if_none_match);
    const bool later = reply.status < 200 || reply.status == 401 || reply.status == 403 ||
                       reply.status == 408 || reply.status == 429 || reply.status >= 500;
    if (later) {
      wait(reply.retry_after_s, now);
    } else {
      failures_ = 0;
    }
    return reply;
  }

  // What the service asks for; else twice as long as before. Both with jitter on top.
  void wait(long retry_after_s, uint32_t now) {
    uint32_t backoff = pace_.first_wait_ms;
    for (unsigned i = 0; i < failures_ && backoff < pace_.longest_wait_ms; ++i) backoff *= 2;
    if (backoff > pace_.longest_wait_ms) backoff = pace_.longest_wait_ms;
    if (failures_ < 32) ++failures_;
    const uint32_t jitter = random_() % (backoff / 2 + 1);
    // A day at most: what is longer is no sensible answer, and would overflow.
    const long asked_s = retry_after_s > 86400 ? 86400 : retry_after_s;
    wait_ms_ = (asked_s > 0 ? static_cast<uint32_t>(asked_s) * 1000 : backoff / 2) + jitter;
    wait_from_ = now;
    waiting_ = true;
  }

  Transport& transport_;
  Random random_;
  OnConfig on_config_;
  Pace pace_;
  Outbox<Capacity> outbox_;
  int64_t last_ms_ = 0;
  std::string etag_;
  unsigned failures_ = 0;
  unsigned long stored_ = 0, rejected_ = 0;
  bool waiting_ = false, config_begun_ = false, heartbeat_begun_ = false;
  uint32_t wait_from_ = 0, wait_ms_ = 0, config_at_ = 0, heartbeat_at_ = 0;
};

}  // namespace iotflow
